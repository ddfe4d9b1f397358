/**
 * Least squares with non-negative unknowns: minimises x'Gx - 2c'x over x >= 0, by Lawson and Hanson's active sets on the
 * normal equations (Solving Least Squares Problems, 1974, chapter 23). Called by fit-step-time.ts with seven scaled
 * columns; not meant for hundreds.
 */

/** @param gram symmetric, positive semidefinite [n][n]  @param moment [n]  @returns x [n], all >= 0 */
export function solveNonNegative(gram: readonly (readonly number[])[], moment: readonly number[]): number[] {
  const size = moment.length;
  const solution: number[] = new Array<number>(size).fill(0);
  const isFree: boolean[] = new Array<boolean>(size).fill(false);
  const tolerance = 1e-12 * Math.max(1, ...moment.map(Math.abs));

  for (let round = 0; round < 3 * size + 10; round += 1) {
    const entering = steepest(gram, moment, solution, isFree, tolerance);
    if (entering < 0) break;
    isFree[entering] = true;
    for (;;) {
      const free = indexesOf(isFree);
      const trial = solveFree(gram, moment, free);
      if (trial.every((value) => value > 0)) {
        solution.fill(0);
        free.forEach((index, place) => {
          solution[index] = trial[place] ?? 0;
        });
        break;
      }
      // Walk towards the trial until the first unknown reaches zero; that one is bound again.
      let stride = 1;
      free.forEach((index, place) => {
        const before = solution[index] ?? 0;
        const after = trial[place] ?? 0;
        if (after <= 0) stride = Math.min(stride, before === after ? 0 : before / (before - after));
      });
      free.forEach((index, place) => {
        const before = solution[index] ?? 0;
        const moved = before + stride * ((trial[place] ?? 0) - before);
        const isBound = (trial[place] ?? 0) <= 0 && moved <= 1e-15;
        solution[index] = isBound ? 0 : moved;
        if (isBound) isFree[index] = false;
      });
      if (!isFree.includes(true)) break;
    }
  }
  return solution;
}

const indexesOf = (flags: readonly boolean[]): number[] =>
  flags.flatMap((flag, index) => (flag ? [index] : []));

/** The bound unknown whose growth lowers the loss fastest, or -1. */
function steepest(
  gram: readonly (readonly number[])[],
  moment: readonly number[],
  solution: readonly number[],
  isFree: readonly boolean[],
  tolerance: number,
): number {
  let best = -1;
  let bestSlope = tolerance;
  gram.forEach((row, index) => {
    if (isFree[index]) return;
    const slope = (moment[index] ?? 0) - row.reduce((sum, value, j) => sum + value * (solution[j] ?? 0), 0);
    if (slope > bestSlope) {
      best = index;
      bestSlope = slope;
    }
  });
  return best;
}

/** Solves the free unknowns' equations by Gauss with row pivots; a dependent column gets 0. */
function solveFree(
  gram: readonly (readonly number[])[],
  moment: readonly number[],
  free: readonly number[],
): number[] {
  const rows = free.map((i) => [...free.map((j) => gram[i]?.[j] ?? 0), moment[i] ?? 0]);
  const size = free.length;
  for (let column = 0; column < size; column += 1) {
    let pivot = column;
    for (let i = column + 1; i < size; i += 1) {
      if (Math.abs(rows[i]?.[column] ?? 0) > Math.abs(rows[pivot]?.[column] ?? 0)) pivot = i;
    }
    const chosen = rows[pivot] ?? [];
    rows[pivot] = rows[column] ?? [];
    rows[column] = chosen;
    const head = chosen[column] ?? 0;
    if (Math.abs(head) < 1e-14) continue;
    for (let i = 0; i < size; i += 1) {
      const row = rows[i];
      if (i === column || row === undefined) continue;
      const factor = (row[column] ?? 0) / head;
      if (factor === 0) continue;
      for (let j = column; j <= size; j += 1) row[j] = (row[j] ?? 0) - factor * (chosen[j] ?? 0);
    }
  }
  return rows.map((row, i) => (Math.abs(row[i] ?? 0) < 1e-14 ? 0 : (row[size] ?? 0) / (row[i] ?? 1)));
}
