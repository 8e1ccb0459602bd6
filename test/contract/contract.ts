/** The four documents that are this project's contract, read as data: which ids must hold, and which tests cite them. */
import { readSource } from "../support/source.ts";

export const DOCUMENTS = ["wire-protocol", "provisioning", "extensions", "system"] as const;
export type DocumentName = (typeof DOCUMENTS)[number];

/** One numbered fact. */
export interface Fact {
  readonly id: string;
  /** "5.1 Document", "0. Conventions". */
  readonly section: string;
  /** Number of the top section. */
  readonly chapter: number;
  /** M, S, Q, I, VIS, DEFECT, QUIRK as the document marks the id; undefined without a mark. */
  readonly mark: string | undefined;
  readonly text: string;
}

/** A test that claims to assert facts. */
export interface Citation {
  readonly document: DocumentName;
  readonly id: string;
  /** `file:line` of the test's name. */
  readonly where: string;
}

const ID = "[A-Z][A-Z0-9]*-\\d+[a-z]?";
const MARK = "M|S|Q|I|VIS|DEFECT|QUIRK";

/** Every id that the document defines, in its order. */
export function readDocument(markdown: string): Fact[] {
  const facts = new Map<string, Fact>();
  let section = "";
  let chapter = 0;
  let inherited: string | undefined;
  /** Column of the ids in the table we are in. */
  let column: number | undefined;
  for (const line of markdown.split("\n")) {
    const heading = /^(#{2,4}) (.*)$/.exec(line);
    if (heading !== null) {
      const title = heading[2] ?? "";
      section = title.replace(/\s*\(`.*$/, "").replace(/\s*\[\w+\]$/, "");
      const number = /^(\d+)\./.exec(title);
      if (number !== null) chapter = Number(number[1]);
      if (heading[1] === "##") inherited = /\[(\w+)\]$/.exec(title)?.[1];
      continue;
    }
    let definitions: Definition[];
    if (line.startsWith("|")) {
      const cells = cellsOf(line);
      if (column === undefined) {
        column = Math.max(
          0,
          cells.findIndex((cell) => /^ids?$/i.test(cell)),
        );
        // A table may go on after an empty line without its heading.
        definitions = definitionInRow(cells, 0);
      } else definitions = definitionInRow(cells, column);
    } else {
      column = undefined;
      definitions = definitionsInText(line.trimEnd());
    }
    for (const { id, mark, text } of definitions) {
      if (facts.has(id)) continue;
      facts.set(id, { id, section, chapter, mark: mark ?? inherited, text });
    }
  }
  return [...facts.values()];
}

interface Definition {
  readonly id: string;
  readonly mark: string | undefined;
  readonly text: string;
}

/** A row defines the id of its "Id" column, or of its first; ids in other cells are pointers. */
function definitionInRow(cells: readonly string[], column: number): Definition[] {
  const own = new RegExp(`^(?:\\*\\*)?(${ID})(?: \\[(${MARK})\\])?(?:\\*\\*)?$`);
  const match = own.exec(cells[column] ?? "");
  if (match === null) return [];
  const rest = cells.toSpliced(column, 1);
  return [{ id: match[1] ?? "", mark: match[2] ?? leadingMark(rest), text: rest.join(" | ") }];
}

function cellsOf(row: string): string[] {
  return row
    .split(/(?<!\\)\|/)
    .slice(1, -1)
    .map((cell) => cell.trim());
}

function definitionsInText(line: string): Definition[] {
  // `- **ID words** text`, `**ID [M]** text` inside a paragraph, `ID [M] text` at the start of a line or sentence.
  const pattern = new RegExp(
    `(?<=^- )\\*\\*(${ID})(?: \\[(${MARK})\\])?(?: [^*[]*)?\\*\\*|\\*\\*(${ID})(?: \\[(${MARK})\\])?\\*\\*|(?<=^|[.;:] |\\()(${ID}) \\[(${MARK})\\]|^(${ID})\\. `,
    "g",
  );
  const matches = [...line.matchAll(pattern)];
  return matches.map((match, index) => {
    const end = matches[index + 1]?.index ?? line.length;
    const text = line.slice(match.index + match[0].length, end).trim();
    const [, ...groups] = match;
    return {
      id: groups[0] ?? groups[2] ?? groups[4] ?? groups[6] ?? "",
      mark: groups[1] ?? groups[3] ?? groups[5] ?? leadingMark([text]),
      text,
    };
  });
}

/** A fact that begins with the mark of a quirk or defect is one as a whole; a quirk mentioned later is only a part. */
function leadingMark(cells: readonly string[]): string | undefined {
  for (const cell of cells) {
    if (/^\*\*QUIRKS?\b/.test(cell)) return "QUIRK";
    if (/^\[DEFECT\]/.test(cell)) return "DEFECT";
  }
  return undefined;
}

/** Whether the id belongs to the contract that tests must cover. */
export function isMust(document: DocumentName, fact: Fact): boolean {
  switch (document) {
    case "provisioning":
      return fact.mark === "M";
    case "extensions":
      // The acceptance scenarios of §19 have no mark, and each of them has to be run or to have a reason.
      return fact.mark === "M" || fact.id.startsWith("E2E-");
    case "wire-protocol":
      return fact.chapter >= 1 && fact.chapter <= 19 && !isOdd(fact);
    case "system":
      return fact.chapter >= 1 && fact.chapter <= 14 && !isOdd(fact);
  }
}

function isOdd(fact: Fact): boolean {
  return fact.mark === "QUIRK" || fact.mark === "DEFECT" || fact.mark === "Q" || fact.mark === "I";
}

/**
 * Ids named by the tests of one file. After a document name every id counts, up to the next document name or a colon;
 * `OVF-10..12` names three. Groups (`describe`) and tests that never run (`test.skip`, `test.todo`) do not count.
 */
export function readCitations(file: string, text: string): Citation[] {
  if (!DOCUMENTS.some((name) => text.includes(`${name}.md`))) return [];
  const found: Citation[] = [];
  const { code, strings } = readSource(text);
  for (const literal of strings) {
    const before = code.slice(Math.max(0, literal.offset - 200), literal.offset);
    if (/(?:\bdescribe(?:\.\w+)?|\b(?:test|it)\.(?:skip|todo))\s*\(\s*$/.test(before)) continue;
    for (const { document, id } of citedIn(literal.text)) {
      found.push({
        document,
        id,
        where: `${file}:${code.slice(0, literal.offset).split("\n").length}`,
      });
    }
  }
  return found;
}

/** The ids cited in one test name. */
export function citedIn(name: string): { document: DocumentName; id: string }[] {
  const pieces = name.matchAll(
    /\b(wire-protocol|provisioning|extensions|system)\.md\b((?:(?!\b(?:wire-protocol|provisioning|extensions|system)\.md\b)[^:])*)/g,
  );
  return [...pieces].flatMap(([, document, rest = ""]) =>
    [...rest.matchAll(/\b([A-Z][A-Z0-9]*)-(\d+)([a-z]?)(?:\.\.(?:\1-)?(\d+))?(?![\w-])/g)].flatMap(
      ([, prefix = "", first = "", letter = "", last]) => {
        const count = last === undefined ? 1 : Number(last) - Number(first) + 1;
        return Array.from({ length: Math.max(1, Math.min(count, 200)) }, (_, step) => ({
          document: document as DocumentName,
          id: `${prefix}-${String(Number(first) + step).padStart(first.length, "0")}${letter}`,
        }));
      },
    ),
  );
}

/** One section's figures. */
export interface SectionTally {
  readonly section: string;
  readonly must: readonly string[];
  readonly cited: readonly string[];
  readonly uncovered: readonly string[];
}

export interface DocumentTally {
  readonly document: DocumentName;
  readonly must: number;
  readonly cited: number;
  readonly leftOut: number;
  readonly sections: readonly SectionTally[];
}

/** Figures of one document; `leftOut` maps ids that are not counted to the reason. */
export function tally(
  document: DocumentName,
  facts: readonly Fact[],
  options: { cited: ReadonlySet<string>; leftOut: Readonly<Record<string, string>> },
): DocumentTally {
  const musts = facts.filter((fact) => isMust(document, fact));
  // Whoever finds a way to test such an id may: it counts then.
  const counted = musts.filter(
    (fact) => options.leftOut[fact.id] === undefined || options.cited.has(fact.id),
  );
  const sections = [...new Set(counted.map((fact) => fact.section))].map((section) => {
    const must = counted.filter((fact) => fact.section === section).map((fact) => fact.id);
    return {
      section,
      must,
      cited: must.filter((id) => options.cited.has(id)),
      uncovered: must.filter((id) => !options.cited.has(id)),
    };
  });
  return {
    document,
    must: counted.length,
    cited: counted.filter((fact) => options.cited.has(fact.id)).length,
    leftOut: musts.length - counted.length,
    sections,
  };
}
