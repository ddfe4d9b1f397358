'use client';
/** An empty place that teaches: what will be here, and one command to copy. Called where there is nothing to show. */
import { Check, Copy } from 'lucide-react';
import { useState } from 'react';
import styles from './teach.module.css';

export function Teach(props: { readonly title: string; readonly text: string; readonly command: string }) {
  const [state, setState] = useState<'ready' | 'copied' | 'select'>('ready');
  const copy = (): void => {
    // Outside a secure context there is no clipboard; the command can still be selected.
    if (navigator.clipboard === undefined) {
      setState('select');
      return;
    }
    navigator.clipboard.writeText(props.command).then(
      () => setState('copied'),
      () => setState('select'),
    );
  };
  return (
    <section className={styles.teach}>
      <h2>{props.title}</h2>
      <p>{props.text}</p>
      <div className={styles.command}>
        <code>{props.command}</code>
        <button type="button" onClick={copy}>
          {state === 'copied' ? (
            <Check size={14} aria-hidden="true" />
          ) : (
            <Copy size={14} aria-hidden="true" />
          )}
          {state === 'copied' ? 'Copied' : state === 'select' ? 'Select and copy it' : 'Copy'}
        </button>
      </div>
    </section>
  );
}
