import { describe } from "./base/error.ts";
import { run } from "./cli/run.ts";
import { argv, exit, settle, writeStderr } from "./system/process.ts";

settle();
try {
  exit(await run(argv()));
} catch (error) {
  // Commands log their own failures; what arrives here happened before there was a log.
  writeStderr(`waagent: ${describe(error)}\n`);
  exit(1);
}
