/**
 * The 200 prompts of the agreement bench: questions as a chat, code, lists, numbers, records, letters, tales and six
 * languages. Every kind is openings times subjects, so that all differ and none was chosen for its answer. Pure data.
 */

export interface AgreementPrompt {
  readonly kind: string;
  readonly text: string;
}

interface Kind {
  readonly openings: readonly ((subject: string) => string)[];
  readonly subjects: readonly string[];
}

/** SmolLM2's chat format, which is ChatML. */
const asked = (question: string): string =>
  `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`;

const kinds: Readonly<Record<string, Kind>> = {
  chat: {
    openings: [
      (subject) => asked(`What is ${subject}? Explain it to a child in three sentences.`),
      (subject) => asked(`Why should anyone care about ${subject}?`),
      (subject) => asked(`Give me five facts about ${subject}, one a line.`),
      (subject) => asked(`Write a short poem about ${subject}.`),
      (subject) => asked(`I have to give a talk about ${subject} tomorrow. How do I begin?`),
      (subject) => asked(`Is there anything dangerous about ${subject}? Answer yes or no, then say why.`),
    ],
    subjects: [
      'a lighthouse',
      'photosynthesis',
      'the printing press',
      'compound interest',
      'bread made with sourdough',
      'the tide',
      'a hash table',
      'the Silk Road',
    ],
  },
  code: {
    openings: [
      (subject) => `def ${subject.replaceAll(' ', '_')}(values):\n    """`,
      (subject) => `// ${subject}, in TypeScript\nexport function `,
      (subject) => `/* ${subject} */\n#include <stdio.h>\n\nint main(void) {\n`,
      (subject) => `-- ${subject}\nSELECT `,
      (subject) => `# README\n\nThis small library does one thing: ${subject}.\n\n## Usage\n\n\`\`\`python\n`,
    ],
    subjects: [
      'sort by length',
      'count the words',
      'merge two lists',
      'find the median',
      'remove duplicates',
      'parse a date',
    ],
  },
  list: {
    openings: [
      (subject) => `Things to take along for ${subject}:\n1.`,
      (subject) => `A checklist for ${subject}\n- [ ] `,
      (subject) => `The steps of ${subject} are, in order: first,`,
      (subject) => `| item | needed for ${subject} | price |\n| --- | --- | --- |\n|`,
    ],
    subjects: [
      'a week in the mountains',
      'painting a room',
      'a birthday party',
      'moving house',
      'a job interview',
    ],
  },
  numbers: {
    openings: [
      (subject) => `The first numbers of the sequence that begins ${subject} are ${subject}`,
      (subject) => `Question: what is the sum of ${subject}?\nAnswer: The sum is`,
      (subject) => `A shop sold ${subject} apples on three days. On the fourth day`,
      (subject) => `x,y\n${subject.split(', ').join('\n')}\n`,
      (subject) => `Year: 1${subject.replaceAll(', ', '')}. In that year,`,
    ],
    subjects: ['2, 4, 6', '1, 1, 2, 3, 5', '3, 9, 27', '100, 90, 80'],
  },
  record: {
    openings: [
      (subject) => `{"id": 17, "name": "${subject}", "tags": [`,
      (subject) => `<article>\n  <h1>${subject}</h1>\n  <p>`,
      (subject) => `2024-03-11 08:15:02 INFO start ${subject}\n2024-03-11 08:15:03 WARN `,
      (subject) => `name: ${subject}\nversion: 1.4.0\ndependencies:\n  - `,
    ],
    subjects: ['north harbour', 'billing export', 'garden sensors', 'night train', 'reading club'],
  },
  letter: {
    openings: [
      (subject) => `Dear Mrs Lindqvist,\n\nthank you for your letter about ${subject}. I`,
      (subject) => `Subject: ${subject}\n\nHi all,\n\n`,
      (subject) => `Minutes of the meeting on ${subject}. Present: six members. The chair`,
    ],
    subjects: ['the broken fence', 'the summer concert', 'the new timetable', 'the lost parcel'],
  },
  tale: {
    openings: [
      (subject) => `Once upon a time there was ${subject} who`,
      (subject) => `"I have never seen ${subject}," said the captain, "but`,
      (subject) => `It rained for nine days. On the tenth, ${subject} came down the road and`,
      (subject) => `The history of ${subject} in this valley begins with`,
    ],
    subjects: ['an old clockmaker', 'a blind dog', 'a travelling circus', 'the last miller', 'a red balloon'],
  },
  language: {
    openings: [
      (subject) => `Die Geschichte der Stadt beginnt mit ${subject}. Im Jahr`,
      (subject) => `Bonjour, je voudrais savoir comment ${subject} fonctionne, parce que`,
      (subject) => `La receta de mi abuela lleva ${subject}, aceite y`,
      (subject) => `Oggi parliamo di ${subject} e della sua importanza per`,
      (subject) => `O professor explicou que ${subject} pode`,
      (subject) => `Translate into Swedish: "${subject}". The translation is "`,
    ],
    subjects: ['Maria', 'internet', 'pan', 'Europa', 'radio'],
  },
};

export function agreementPrompts(): AgreementPrompt[] {
  return Object.entries(kinds).flatMap(([kind, { openings, subjects }]) =>
    subjects.flatMap((subject) => openings.map((opening) => ({ kind, text: opening(subject) }))),
  );
}
