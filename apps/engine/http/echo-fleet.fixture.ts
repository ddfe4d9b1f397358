/**
 * A fleet for the endpoint's tests: answers every sequence from a script of token ids, one token a turn of the event loop
 * (or every `gapMs`), obeys stop, cancel and age limits, and gives an account at the end. Only the border's promises, no scheduling.
 */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { noGuesses } from '@variator/scheduler/guess-watch';
import type { EndReason, SequenceSpec } from '@variator/scheduler/sequence';
import { type Fleet, FleetError, type SequenceEvent, type SequenceStream } from '../fleet/fleet.ts';

export interface EchoScript {
  readonly tokenIds: readonly number[];
  readonly gapMs?: number;
  /** Fails with reason `error` before the token of this index. */
  readonly failAt?: number;
  /** Its worker hangs: age limits are not kept. */
  readonly isDeaf?: true;
  /** The worker is lost before the token of this index: no final account. */
  readonly loseAt?: number;
}

export interface EchoFleet extends Fleet {
  readonly submitted: SequenceSpec[];
  /** By sequence id, in the order they ended. */
  readonly endings: {
    readonly sequenceId: string;
    readonly reason: EndReason;
    readonly tokenCount: number;
  }[];
  activeCount(): number;
  unready(reason: string): void;
}

export function echoFleet(scriptFor: (spec: SequenceSpec) => EchoScript, now: () => number): EchoFleet {
  const submitted: SequenceSpec[] = [];
  const endings: { sequenceId: string; reason: EndReason; tokenCount: number }[] = [];
  let unreadyReason = '';
  let activeCount = 0;
  const unused = (): never => {
    throw new FleetError('the echo fleet only answers sequences');
  };

  function submit(spec: SequenceSpec): SequenceStream {
    if (unreadyReason !== '') throw new FleetError(unreadyReason);
    submitted.push(spec);
    activeCount += 1;
    const script = scriptFor(spec);
    const submittedAt = now();
    const isOlderThan = (ms: number | null | undefined): boolean =>
      script.isDeaf !== true && typeof ms === 'number' && now() - submittedAt >= ms;
    const leaving = new AbortController();
    let asked: EndReason | null = null;
    const leave = (reason: EndReason): void => {
      asked ??= reason;
      leaving.abort();
    };
    async function* events(): AsyncGenerator<SequenceEvent> {
      let tokenCount = 0;
      let reason: EndReason | null = null;
      let isAccountFinal = true;
      while (reason === null) {
        await (script.gapMs === undefined
          ? turn()
          : sleep(script.gapMs, undefined, { signal: leaving.signal }).catch(() => undefined));
        const tokenId = script.tokenIds[tokenCount % script.tokenIds.length] ?? 0;
        if (asked !== null) reason = asked;
        else if (isOlderThan(spec.ageLimits?.totalMs)) reason = 'expired';
        else if (tokenCount === 0 && isOlderThan(spec.ageLimits?.queueMs)) reason = 'expired';
        else if (script.failAt === tokenCount) reason = 'error';
        else if (script.loseAt === tokenCount) {
          reason = 'error';
          isAccountFinal = false;
        } else {
          yield { kind: 'token', tokenId, index: tokenCount, at: now() };
          tokenCount += 1;
          if (spec.stopTokenIds.includes(tokenId)) reason = 'stop';
          else if (tokenCount === spec.maxTokens) reason = 'length';
        }
      }
      activeCount -= 1;
      endings.push({ sequenceId: spec.sequenceId, reason, tokenCount });
      yield {
        kind: 'ended',
        at: now(),
        workerId: 'echo',
        pathId: 'path',
        isAccountFinal,
        isLost: script.loseAt === tokenCount,
        resumeCount: 0,
        ended: {
          sequenceId: spec.sequenceId,
          reason,
          message: reason === 'error' ? '/secret/path: native fault' : '',
          account: {
            prefillDeviceMs: 2,
            decodeDeviceMs: tokenCount,
            speculationWasteDeviceMs: 0,
            recomputeDeviceMs: 0,
            fitId: 'fit',
            fitCount: 1,
          },
          promptTokenCount: spec.promptTokenIds.length,
          cachedTokenCount: 4,
          completionTokenCount: tokenCount,
          preemptionCount: 0,
          speculatedTokenCount: 0,
          acceptedTokenCount: 0,
          guesses: noGuesses,
          queueMs: 1,
          isMixedNumerics: false,
        },
      };
    }
    return {
      [Symbol.asyncIterator]: events,
      stop: () => leave('stop'),
      cancel: () => leave('cancelled'),
    };
  }

  return {
    submitted,
    endings,
    activeCount: () => activeCount,
    unready: (reason) => {
      unreadyReason = reason;
    },
    canServe: () => unreadyReason === '',
    canTake: () => unreadyReason === '',
    unreadyReason: () => unreadyReason,
    workers: () => [],
    submit,
    prepare: unused,
    switchTo: unused,
    alternate: unused,
    check: unused,
    calibrate: unused,
    useFit: unused,
    fitFor: () => null,
    watchSteps: unused,
    drain: unused,
  };
}
