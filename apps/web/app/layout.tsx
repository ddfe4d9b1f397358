/** The document around every page: fonts from npm, tokens, the frame. Fetches nothing; the frame's parts do. */
import { GeistMono } from 'geist/font/mono';
import { GeistSans } from 'geist/font/sans';
import type { Metadata, Viewport } from 'next';
import { type ReactNode, Suspense } from 'react';
import { Frame } from '../frame/frame.tsx';
import './globals.css';

export const metadata: Metadata = {
  title: { default: 'Variator', template: '%s · Variator' },
  description: 'LLM serving that re-tunes itself',
};

export const viewport: Viewport = {
  themeColor: [
    { media: '(prefers-color-scheme: light)', color: '#f7f7f5' },
    { media: '(prefers-color-scheme: dark)', color: '#0d0e10' },
  ],
};

export default function Layout({ children }: { readonly children: ReactNode }) {
  return (
    <html lang="en" className={`${GeistSans.variable} ${GeistMono.variable}`}>
      <body>
        <Suspense>
          <Frame>{children}</Frame>
        </Suspense>
      </body>
    </html>
  );
}
