import fs from "node:fs";
import path from "node:path";
import { Glob } from "bun";
import {
  type Citation,
  DOCUMENTS,
  type DocumentName,
  type DocumentTally,
  type Fact,
  readCitations,
  readDocument,
  tally,
} from "./contract.ts";
import { LEFT_OUT } from "./left-out.ts";

export const project = path.resolve(import.meta.dir, "../..");

export interface Contract {
  readonly facts: Readonly<Record<DocumentName, readonly Fact[]>>;
  readonly citations: readonly Citation[];
  readonly tallies: readonly DocumentTally[];
}

/** The documents and tests of this working tree. */
export function loadContract(): Contract {
  const facts = Object.fromEntries(
    DOCUMENTS.map((name) => [
      name,
      readDocument(fs.readFileSync(path.join(import.meta.dir, `${name}.md`), "utf8")),
    ]),
  ) as Record<DocumentName, Fact[]>;
  const citations = [...new Glob("test/**/*.test.ts").scanSync(project)]
    .filter((file) => file !== "test/unit/support/contract.test.ts")
    .sort()
    .flatMap((file) => readCitations(file, fs.readFileSync(path.join(project, file), "utf8")));
  const tallies = DOCUMENTS.map((name) =>
    tally(name, facts[name], {
      cited: new Set(citations.filter(({ document }) => document === name).map(({ id }) => id)),
      leftOut: LEFT_OUT[name],
    }),
  );
  return { facts, citations, tallies };
}

/** The table of the README. */
export function contractTable(tallies: readonly DocumentTally[]): string {
  const row = (...cells: readonly (string | number)[]) => `| ${cells.join(" | ")} |`;
  const percent = (cited: number, must: number) => `${Math.floor((100 * cited) / must)} %`;
  const sum = (pick: (tally: DocumentTally) => number) =>
    tallies.reduce((total, each) => total + pick(each), 0);
  const [must, cited, leftOut] = [sum((t) => t.must), sum((t) => t.cited), sum((t) => t.leftOut)];
  return [
    row("Document", "Must ids", "Cited by a test", "Share", "Left out with a reason"),
    row("---", "--:", "--:", "--:", "--:"),
    ...tallies.map((t) =>
      row(
        `[${t.document}](test/contract/${t.document}.md)`,
        t.must,
        t.cited,
        percent(t.cited, t.must),
        t.leftOut,
      ),
    ),
    row("**Sum**", must, cited, percent(cited, must), leftOut),
  ].join("\n");
}

/** Parts of the README that are made, each between two marks. */
export const MARKS = {
  contract: [
    "<!-- contract table: `npm run contract -- --readme` -->",
    "<!-- end of contract table -->",
  ],
  configuration: [
    "<!-- configuration reference: `npm run contract -- --readme` -->",
    "<!-- end of configuration reference -->",
  ],
  bench: ["<!-- bench table: `npm run bench -- --readme` -->", "<!-- end of bench table -->"],
} as const;

/** README text with one made part replaced. Errors: the marks are missing. */
export function withPart(readme: string, part: keyof typeof MARKS, text: string): string {
  const [before, after] = MARKS[part];
  const [begin, end] = [readme.indexOf(before), readme.indexOf(after)];
  if (begin === -1 || end < begin)
    throw new Error(`README.md has lost the marks of its ${part} part`);
  return `${readme.slice(0, begin + before.length)}\n${text.trim()}\n${readme.slice(end)}`;
}

/** The made part of a README as it stands. */
export function partOf(readme: string, part: keyof typeof MARKS): string {
  const [before, after] = MARKS[part];
  return readme.slice(readme.indexOf(before) + before.length, readme.indexOf(after)).trim();
}

/** What the README claims to be cited, by document; empty without a table. */
export function claimedInReadme(readme: string): Map<string, number> {
  const rows = readme.matchAll(/^\| \[([\w-]+)\]\(test\/contract\/[^|]+\| +\d+ +\| +(\d+) +\|/gm);
  return new Map([...rows].map(([, name = "", cited]) => [name, Number(cited)]));
}
