/** How far something is, redrawn in place on a terminal and as a line now and then elsewhere. */

export interface Progress {
  readonly label: string;
  /** 0 to 1; null where nobody knows. */
  readonly share: number | null;
  readonly text: string;
}

const BAR_WIDTH = 24;

/** @param progress is asked at each drawing */
export function progressLine(progress: () => Progress): { end(): void } {
  const isTerminal = process.stdout.isTTY === true;
  const draw = (): void => {
    const { label, share, text } = progress();
    const known = share === null ? null : Math.min(1, Math.max(0, share));
    const filled = Math.round((known ?? 0) * BAR_WIDTH);
    const bar =
      known === null
        ? ''
        : `[${'#'.repeat(filled)}${'.'.repeat(BAR_WIDTH - filled)}] ${Math.round(known * 100)} %, `;
    const line = `${label.padEnd(22)} ${bar}${text}`;
    if (isTerminal) process.stdout.write(`\r\x1b[K${line.slice(0, (process.stdout.columns ?? 120) - 1)}`);
    else console.log(line);
  };
  const timer = setInterval(draw, isTerminal ? 250 : 5000);
  return {
    end() {
      clearInterval(timer);
      draw();
      if (isTerminal) process.stdout.write('\n');
    },
  };
}
