/** A regime's name for people, from its features: "short chats, long prompts now and then". Called by regime.ts. Pure. */
import type { RegimeFeatures } from './regime-features.ts';

const SHORT_PROMPT = 150;
const LONG_PROMPT = 400;
const SHORT_ANSWER = 16;
const LONG_ANSWER = 200;
/** p90 above the mean by this factor: most are short, some are not. */
const MIXED_RATIO = 3;

export function nameRegime(features: RegimeFeatures): string {
  const prompt = Math.exp(features.meanLogPrompt ?? 0);
  const longest = Math.exp(features.p90LogPrompt ?? 0);
  const answer = Math.exp(features.meanLogOutput ?? 0);
  const parts = [promptsInWords(prompt, answer)];
  if (prompt < LONG_PROMPT && longest > MIXED_RATIO * prompt && longest > LONG_PROMPT / 2) {
    parts.push('long prompts now and then');
  }
  if (answer < SHORT_ANSWER) parts.push('short answers');
  else if (answer > LONG_ANSWER) parts.push('long answers');
  if ((features.meanHitShare ?? 0) > 0.5) parts.push('mostly cached');
  if ((features.logCv2 ?? 0) > Math.log(3)) parts.push('bursty');
  return parts.join(', ');
}

function promptsInWords(prompt: number, answer: number): string {
  if (prompt >= LONG_PROMPT) return 'long prompts';
  if (prompt >= SHORT_PROMPT) return 'middling prompts';
  return answer >= SHORT_ANSWER ? 'short chats' : 'short prompts';
}
