'use client';
/** The way from page to page: words and icons, icons alone on narrower screens, a bottom bar on a phone. */
import { Activity, GitCompareArrows } from 'lucide-react';
import Link from 'next/link';
import { usePathname } from 'next/navigation';
import styles from './frame.module.css';
import { useProposals } from './queries.ts';
import { useTimeRange } from './time-range.ts';

const pages = [
  { href: '/', name: 'Overview', Icon: Activity },
  { href: '/proposals', name: 'Proposals', Icon: GitCompareArrows },
] as const;

export function Rail() {
  const pathname = usePathname();
  const range = useTimeRange();
  const openCount = useProposals().data?.filter((proposal) => proposal.state === 'open').length ?? 0;
  return (
    <nav className={styles.rail} aria-label="Pages">
      <div className={styles.railStay}>
        <div className={styles.brand}>
          <svg viewBox="0 0 32 32" width="22" height="22" aria-hidden="true">
            <rect width="32" height="32" rx="7" className={styles.brandGround} />
            <path d="M8 9.5 16 23 24 9.5" className={styles.brandMark} />
            <circle cx="16" cy="9.5" r="2.2" className={styles.brandDot} />
          </svg>
          <span className={styles.railWord}>Variator</span>
        </div>
        <ul className={styles.railList}>
          {pages.map(({ href, name, Icon }) => {
            const count = href === '/proposals' ? openCount : 0;
            return (
              <li key={href}>
                <Link
                  href={{ pathname: href, query: { range: range.name } }}
                  className={styles.railLink}
                  aria-current={pathname === href ? 'page' : undefined}
                  title={name}
                >
                  <Icon size={16} aria-hidden="true" />
                  <span className={styles.railWord}>{name}</span>
                  {count > 0 && (
                    <span className={styles.railCount}>
                      {count}
                      <span className="visually-hidden"> open</span>
                    </span>
                  )}
                </Link>
              </li>
            );
          })}
        </ul>
      </div>
    </nav>
  );
}
