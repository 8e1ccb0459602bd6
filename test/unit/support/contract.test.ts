import { describe, expect, test } from "bun:test";
import {
  citedIn,
  DOCUMENTS,
  isMust,
  readCitations,
  readDocument,
  tally,
} from "../../contract/contract.ts";
import { LEFT_OUT } from "../../contract/left-out.ts";
import { claimedInReadme, contractTable, loadContract, withPart } from "../../contract/load.ts";

const contract = loadContract();

describe("this project's contract", () => {
  test("every cited id exists in the document it is cited from", () => {
    const unknown = contract.citations.filter(
      ({ document, id }) => !contract.facts[document].some((fact) => fact.id === id),
    );
    expect(unknown.map(({ where, document, id }) => `${where}: ${document}.md ${id}`)).toEqual([]);
  });

  test("what is left out is a must id that exists, and has a reason", () => {
    for (const name of DOCUMENTS) {
      for (const [id, reason] of Object.entries(LEFT_OUT[name])) {
        const fact = contract.facts[name].find((candidate) => candidate.id === id);
        expect({ id, must: fact !== undefined && isMust(name, fact) }).toEqual({ id, must: true });
        expect({ id, reason: reason.length > 15 }).toEqual({ id, reason: true });
      }
    }
  });

  test("every acceptance scenario is cited by a test, or left out with a reason", () => {
    const { sections } = contract.tallies.find(({ document }) => document === "extensions")!;
    const scenarios = sections.find(({ section }) => section.startsWith("19."))!;
    expect(scenarios.must.length).toBeGreaterThan(20);
    expect(scenarios.uncovered).toEqual([]);
  });

  test("the documents are read whole", () => {
    const ids = (name: (typeof DOCUMENTS)[number]) => contract.facts[name].map((fact) => fact.id);
    expect(ids("wire-protocol")).toEqual(expect.arrayContaining(["MAP-01", "VMS-01a", "HIST-22"]));
    expect(ids("provisioning")).toEqual(
      expect.arrayContaining(["LIFE-01", "DEPROV-10", "ROOT-02", "PKG-41"]),
    );
    expect(ids("extensions")).toEqual(
      expect.arrayContaining(["EXT-28", "UPD-34", "CG-00", "E2E-54"]),
    );
    expect(ids("system")).toEqual(expect.arrayContaining(["DAEMON-01", "INIT-08", "PKG-10"]));
  });
});

describe("reading a document", () => {
  const document = [
    "## 0. Conventions",
    "Cite `x.md DB-03`; **[M]** = must.",
    "## 1. Files [M]",
    "- **AB-01** first",
    "## 2. Rows (`a/b.py`)",
    "| Id | Fact |",
    "| --- | --- |",
    "| AB-02 [M] | see AB-09 |",
    "| **AB-03** | **QUIRK** odd |",
    "| AB-05a | fine, **QUIRK** in part |",
    "",
    "| # | Id | When | See |",
    "| --- | --- | --- | --- |",
    "| 1 | AB-04 [M] | always | AB-09 |",
    "- **AB-06 [Q]** (probed) x; **AB-07** y",
    "AB-08 [M] text AB-10. AB-11 [I] more",
    "### 2.1 Deeper",
    "- **AB-12** [DEFECT] wrong",
    "- **AB-13 Somewhere** (a place): text",
  ].join("\n");

  test("ids, their marks and sections; a mention is no definition", () => {
    expect(readDocument(document).map(({ id, mark, section }) => [id, mark, section])).toEqual([
      ["AB-01", "M", "1. Files"],
      ["AB-02", "M", "2. Rows"],
      ["AB-03", "QUIRK", "2. Rows"],
      ["AB-05a", undefined, "2. Rows"],
      ["AB-04", "M", "2. Rows"],
      ["AB-06", "Q", "2. Rows"],
      ["AB-07", undefined, "2. Rows"],
      ["AB-08", "M", "2. Rows"],
      ["AB-11", "I", "2. Rows"],
      ["AB-12", "DEFECT", "2.1 Deeper"],
      ["AB-13", undefined, "2.1 Deeper"],
    ]);
  });

  test("must ids: the mark decides in two documents, its absence in the other two", () => {
    const must = (name: (typeof DOCUMENTS)[number]) =>
      readDocument(document)
        .filter((fact) => isMust(name, fact))
        .map(({ id }) => id);
    expect(must("extensions")).toEqual(["AB-01", "AB-02", "AB-04", "AB-08"]);
    expect(must("system")).toEqual([
      "AB-01",
      "AB-02",
      "AB-05a",
      "AB-04",
      "AB-07",
      "AB-08",
      "AB-13",
    ]);
  });

  test("acceptance scenarios are must ids without a mark", () => {
    const [scenario] = readDocument("Own additions: **E2E-52** disk full");
    expect(isMust("extensions", scenario!)).toBe(true);
    expect(isMust("provisioning", scenario!)).toBe(false);
  });

  test("the figures of a section and the table", () => {
    const figures = tally("extensions", readDocument(document), {
      cited: new Set(["AB-02", "AB-08"]),
      leftOut: { "AB-04": "because" },
    });
    expect(figures).toMatchObject({ must: 3, cited: 2, leftOut: 1 });
    expect(figures.sections[1]).toEqual({
      section: "2. Rows",
      must: ["AB-02", "AB-08"],
      cited: ["AB-02", "AB-08"],
      uncovered: [],
    });
    const begin = "<!-- contract table: `npm run contract -- --readme` -->";
    const readme = withPart(
      `a\n${begin}\nold\n<!-- end of contract table -->\nz`,
      "contract",
      contractTable([figures]),
    );
    expect(readme).toContain("| [extensions](test/contract/extensions.md) | 3 | 2 | 66 % | 1 |");
    expect(readme).not.toContain("old");
    expect(claimedInReadme(readme)).toEqual(new Map([["extensions", 2]]));
    expect(() => withPart("a", "contract", "b")).toThrow(/lost the marks/);
  });
});

describe("reading test names", () => {
  const named = (name: string) => citedIn(name).map(({ document, id }) => `${document} ${id}`);

  test("ids count after a document name, up to a colon or the next document", () => {
    expect(named("provisioning.md OVF-10 OVF-11: refused, like HTTP-03")).toEqual([
      "provisioning OVF-10",
      "provisioning OVF-11",
    ]);
    expect(named("system.md LOG-01, wire-protocol.md VMS-01a GS-03..05: x")).toEqual([
      "system LOG-01",
      "wire-protocol VMS-01a",
      "wire-protocol GS-03",
      "wire-protocol GS-04",
      "wire-protocol GS-05",
    ]);
    expect(named("the system.mdx and OVF-10")).toEqual([]);
  });

  test("comments, groups and tests that never run do not count", () => {
    const text = [
      `// test("system.md LOG-01: x")`,
      `describe("system.md LOG-02: x", () => {`,
      `  test("system.md LOG-03: x", run);`,
      "  test.each(rows)(`system.md LOG-04: ${name}`, run);",
      `  test.skip("system.md LOG-05: x", run);`,
      `  test.todo("system.md LOG-06: x");`,
      `  rooted("system.md LOG-07: x", run); });`,
    ].join("\n");
    expect(readCitations("a.test.ts", text)).toEqual([
      { document: "system", id: "LOG-03", where: "a.test.ts:3" },
      { document: "system", id: "LOG-04", where: "a.test.ts:4" },
      { document: "system", id: "LOG-07", where: "a.test.ts:7" },
    ]);
  });
});
