/** One selected thing of a page, kept in the URL, so that a link shows what its sender saw. Used by pages. */
import { useSearchParams } from 'next/navigation';

export function useSelection(name: string): readonly [string, (value: string) => void] {
  const value = useSearchParams().get(name) ?? '';
  const select = (next: string): void => {
    const url = new URL(window.location.href);
    if (next === '') url.searchParams.delete(name);
    else url.searchParams.set(name, next);
    // Next.js follows the browser's own history calls; nothing is fetched anew.
    window.history.replaceState(null, '', url);
  };
  return [value, select];
}
