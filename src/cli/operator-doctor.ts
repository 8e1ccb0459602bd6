import { describe } from "../base/error.ts";
import { userId, writeStderr, writeStdout } from "../system/process.ts";
import { type Ground, prepareGround } from "./context.ts";
import { type Diagnosis, diagnose } from "./doctor/diagnose.ts";
import { formatFinding } from "./doctor/finding.ts";
import { daemonEnvironment, gatherFacts } from "./doctor/gather.ts";
import { EXIT } from "./exit-codes.ts";
import type { OperatorData } from "./operator-commands.ts";
import { createQuietSystem } from "./quiet-system.ts";
import { configurationPath } from "./run.ts";

export interface DoctorOptions {
  readonly json?: boolean | undefined;
  /** Also says what is well. */
  readonly all?: boolean | undefined;
  /** Writes a report for others to this file, and says where. */
  readonly report?: string | undefined;
}

/**
 * `waagent doctor`: one line for each thing that keeps the agent from its work: what, where, why, and what to do. It
 * only looks. Exit code 0 when nothing was found, 2 when something was, 1 when the report cannot be written.
 */
export async function runDoctor(data: OperatorData, options: DoctorOptions): Promise<number> {
  const ground = await prepareGround(data.root, undefined);
  const diagnosis = await examine(ground, data);
  const code = diagnosis.findings.length === 0 ? EXIT.ok : EXIT.degraded;
  if (options.report !== undefined) {
    const { reportText } = await import("./doctor/report.ts");
    const file = configurationPath(options.report, data.root);
    try {
      const text = await reportText(ground, diagnosis);
      // Others attach it somewhere: until they have looked at it, it is theirs alone.
      ground.early.files.write(file, text, { mode: 0o600 });
    } catch (error) {
      writeStderr(`waagent doctor: the report could not be written: ${describe(error)}\n`);
      return EXIT.failure;
    }
    writeStderr(`The report is in ${file}. Look through it before you give it to others.\n`);
  }
  writeStdout(
    options.json === true
      ? `${JSON.stringify(diagnosis, null, 2)}\n`
      : diagnosisText(diagnosis, options.all === true),
  );
  return code;
}

async function examine(ground: Ground, data: OperatorData): Promise<Diagnosis> {
  const daemon = daemonEnvironment(ground.early, ground);
  const system = createQuietSystem(ground, daemon.environment);
  const isRoot = data.root !== undefined || userId() === 0;
  return diagnose(await gatherFacts(system, ground, { ...daemon, isRoot }));
}

/** For people. */
export function diagnosisText({ findings, well, unseen }: Diagnosis, all: boolean): string {
  const lines = [
    ...findings.map(formatFinding),
    ...(all ? well.map((name) => `ok: ${name}`) : []),
    ...unseen.map((what) => `not looked at: ${what}`),
    ...(findings.length === 0 ? ["Nothing is wrong that can be seen from here."] : []),
  ];
  return `${lines.join("\n")}\n`;
}
