import { writeStderr } from "../system/process.ts";
import type { OperatorCall } from "./arguments.ts";
import { EXIT } from "./exit-codes.ts";

/** The commands for people: `waagent config check`. */
export function runOperator(call: OperatorCall): Promise<number> {
  writeStderr(`${call.operator} is not part of this version yet\n`);
  return Promise.resolve(EXIT.notBuilt);
}
