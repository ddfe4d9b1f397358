/** Loaded before anything else by run-sanitized.ts: whoever asks for the addon gets the build with sanitizers. */
const Module = require('node:module');
const path = require('node:path');

const name = 'variator_kernels.node';
const resolve = Module._resolveFilename;
Module._resolveFilename = (request, ...rest) => {
  const file = resolve(request, ...rest);
  return path.basename(file) === name ? path.join(path.dirname(file), 'sanitized', name) : file;
};
