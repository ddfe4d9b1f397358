import { describe, expect, test } from 'vitest';
import { RequestHistory } from './request-history.ts';

describe('the history of requests', () => {
  test('of a session: its turns, how many were streamed, the pauses between them', () => {
    const history = new RequestHistory();
    const who = { tenant: 't', session: 's' };
    const first = history.arrived(who, true, 0);
    expect([first.session, first.tenant]).toEqual([null, null]);
    first.ended(1000);
    history.arrived(who, false, 61_000).ended(62_000);
    const third = history.arrived(who, false, 63_000);
    expect(third.session).toMatchObject({ requestCount: 2, streamedCount: 1, medianPauseMs: 60_000 });
    // It overlaps: no pause.
    expect(history.arrived(who, false, 64_000).session).toMatchObject({
      requestCount: 3,
      medianPauseMs: 60_000,
    });
  });

  test('keeps tenants apart, and a session to its tenant', () => {
    const history = new RequestHistory();
    history.arrived({ tenant: 'a', session: 's' }, true, 0).ended(1);
    const other = history.arrived({ tenant: 'b', session: 's' }, true, 2);
    expect([other.session, other.tenant]).toEqual([null, null]);
  });

  test('counts what a tenant has open at once, on the average', () => {
    const history = new RequestHistory();
    const open = Array.from({ length: 60 }, () => history.arrived({ tenant: 'a', session: '' }, false, 0));
    expect(open.at(-1)?.tenant?.meanOpenCount).toBeGreaterThan(40);
    for (const one of open) one.ended(10);
    for (let at = 20; at < 60; at += 1) history.arrived({ tenant: 'a', session: '' }, false, at).ended(at);
    expect(history.arrived({ tenant: 'a', session: '' }, false, 60).tenant?.meanOpenCount).toBeLessThan(3);
  });

  test('stays bounded, whatever names come', () => {
    const history = new RequestHistory();
    for (let count = 0; count < 10_000; count += 1) {
      history.arrived({ tenant: `t${count}`, session: `s${count}` }, false, count).ended(count);
    }
    expect(history.arrived({ tenant: 't9999', session: 's9999' }, false, 10_000).session).not.toBeNull();
    const oldest = history.arrived({ tenant: 't0', session: 's0' }, false, 10_001);
    expect([oldest.session, oldest.tenant]).toEqual([null, null]);
  });
});
