/**
 * How much of the contract the tests cite: `npm run contract [-- --json | --readme | --summary]`. One line per document
 * and section, then the ids without a test; `--readme` puts the table and the
 * configuration reference into README.md.
 */
import fs from "node:fs";
import path from "node:path";
import { configReference } from "../../src/config/docs.ts";
import { contractTable, loadContract, project, withPart } from "./load.ts";

const { tallies } = loadContract();
const [option] = Bun.argv.slice(2);
if (option === "--json") {
  console.log(JSON.stringify(tallies, undefined, 2));
} else if (option === "--readme") {
  const file = path.join(project, "README.md");
  const readme = withPart(fs.readFileSync(file, "utf8"), "contract", contractTable(tallies));
  fs.writeFileSync(file, withPart(readme, "configuration", configReference()));
  Bun.spawnSync([process.execPath, "fmt", file], { cwd: project });
} else if (option === undefined || option === "--summary") {
  for (const { document, must, cited, leftOut, sections } of tallies) {
    console.log(`${document}.md: ${cited} of ${must} must ids cited, ${leftOut} left out`);
    if (option === "--summary") continue;
    for (const section of sections) {
      console.log(`  §${section.section}: ${section.cited.length} of ${section.must.length}`);
      if (section.uncovered.length > 0)
        console.log(`    without a test: ${section.uncovered.join(" ")}`);
    }
  }
  const sum = (key: "must" | "cited") => tallies.reduce((total, each) => total + each[key], 0);
  console.log(`contract: ${sum("cited")} of ${sum("must")} must ids cited`);
} else {
  console.error("usage: npm run contract [-- --json | --readme | --summary]");
  process.exitCode = 2;
}
