/** The least that could answer, for the gateway's bench: `PORT BASE64_OF_THE_ANSWER`. Reads the body, sends the events. */
import { createServer } from 'node:http';

const [port = '0', answer = ''] = process.argv.slice(2);
const events = Buffer.from(answer, 'base64')
  .toString('utf8')
  .split(/(?<=\n\n)/);

createServer((request, response) => {
  request.resume();
  request.on('end', () => {
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
    });
    for (const event of events) response.write(event);
    response.end();
  });
}).listen(Number(port), '127.0.0.1');
