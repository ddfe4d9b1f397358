/** The address `/proposals`. */
import type { Metadata } from 'next';
import { Proposals } from './proposals.tsx';

export const metadata: Metadata = { title: 'Proposals' };

export default function Page() {
  return <Proposals />;
}
