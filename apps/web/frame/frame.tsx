'use client';
/**
 * What surrounds every page: the rail, the top bar, and the line that says what is missing. Owns the query cache's
 * provider; shows nothing of a page's own matter.
 */
import { QueryClientProvider } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { queryClient } from '../api.ts';
import { Faults } from './faults.tsx';
import styles from './frame.module.css';
import { Rail } from './rail.tsx';
import { TopBar } from './top-bar.tsx';

export function Frame({ children }: { readonly children: ReactNode }) {
  return (
    <QueryClientProvider client={queryClient}>
      <div className={styles.frame}>
        <Rail />
        <div className={styles.column}>
          <TopBar />
          <Faults />
          <main className={styles.main}>{children}</main>
        </div>
      </div>
    </QueryClientProvider>
  );
}
