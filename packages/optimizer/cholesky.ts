/** The lower triangular factor of a covariance, for drawing from it; what rounding made slightly negative counts as none. */
export function robustCholesky(matrix: readonly (readonly number[])[]): number[][] {
  const factor: number[][] = matrix.map(() => matrix.map(() => 0));
  for (let row = 0; row < matrix.length; row += 1) {
    const own = factor[row] ?? [];
    for (let column = 0; column <= row; column += 1) {
      const other = factor[column] ?? [];
      let sum = matrix[row]?.[column] ?? 0;
      for (let k = 0; k < column; k += 1) sum -= (own[k] ?? 0) * (other[k] ?? 0);
      const diagonal = other[column] ?? 0;
      if (row === column) own[row] = Math.sqrt(Math.max(0, sum));
      else own[column] = diagonal > 1e-12 ? sum / diagonal : 0;
    }
  }
  return factor;
}
