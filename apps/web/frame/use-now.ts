/**
 * The time as the page shows it, once a second while the page is visible; null until the browser has taken over from
 * the server's markup, so that both agree on the first picture.
 */
import { useEffect, useState } from 'react';

export function useNow(): number | null {
  const [now, setNow] = useState<number | null>(null);
  useEffect(() => {
    setNow(Date.now());
    const timer = setInterval(() => {
      if (!document.hidden) setNow(Date.now());
    }, 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}
