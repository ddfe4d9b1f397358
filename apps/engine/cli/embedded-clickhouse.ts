/**
 * Keeps the embedded ClickHouse alive on one port: a server that dies is started again on the same data. Used by
 * start.ts. Its readers and writers only ever see a URL that is silent for a moment.
 */
import { startEmbeddedServer } from '@variator/clickhouse/embedded-server';
import { freePort } from './free-port.ts';

export interface EmbeddedClickHouse {
  readonly url: string;
  stop(): Promise<void>;
}

export async function embeddedClickHouse(
  dataDir: string,
  log: (line: string) => void,
): Promise<EmbeddedClickHouse> {
  const port = await freePort('127.0.0.1');
  let isStopping = false;
  let pauseMs = 100;

  const launch = () =>
    startEmbeddedServer({
      dataDir,
      port,
      onExit: (code) => {
        if (isStopping) return;
        log(`ended (${code}); starting it again`);
        setTimeout(again, pauseMs);
      },
    });
  let server = await launch();

  function again(): void {
    if (isStopping) return;
    launch().then(
      (started) => {
        server = started;
        pauseMs = 100;
      },
      (error: Error) => {
        log(error.message);
        pauseMs = Math.min(pauseMs * 2, 5000);
        setTimeout(again, pauseMs);
      },
    );
  }

  return {
    url: server.url,
    async stop() {
      isStopping = true;
      await server.stop();
    },
  };
}
