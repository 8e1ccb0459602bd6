import { AgentError } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import type { LaunchResult } from "../system/launch.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";

type Machine = Pick<System, "files" | "launch" | "log" | "emit" | "root">;
type CustomDataConfig = Pick<
  Config,
  "Lib.Dir" | "Provisioning.DecodeCustomData" | "Provisioning.ExecuteCustomData"
>;

/** Ready waits for custom data (PROV-13), but not for ever (DB-24). */
export const CUSTOM_DATA_LIMIT_MS = 15 * 60_000;
const NOT_EXECUTABLE = 126;
const MAX_OUTPUT_BYTES = 1024 * 1024;

/**
 * Saves custom data: as base64 text, or decoded when it is to be decoded or executed (CD-01..03). What it decodes to
 * is bytes, not text (DB-24). Errors: AgentError "os-utility" when it is not base64, "io".
 */
export function saveCustomData(
  system: Pick<System, "files">,
  config: CustomDataConfig,
  customData: string | undefined,
): void {
  if (customData === undefined) return;
  const execute = config["Provisioning.ExecuteCustomData"];
  const decode = config["Provisioning.DecodeCustomData"] || execute;
  const data = decode ? decodeBase64(customData) : new TextEncoder().encode(customData);
  const file = customDataFile(config);
  const mode = execute ? 0o700 : 0o600;
  const info = system.files.stat(file);
  if (info?.mode === mode && Buffer.from(system.files.read(file)).equals(Buffer.from(data))) return;
  system.files.write(file, data, { mode });
}

export function customDataFile(config: Pick<Config, "Lib.Dir">): SystemPath {
  return join(config["Lib.Dir"] as SystemPath, "CustomData");
}

/** Characters outside of the alphabet are passed over (CD-02). Errors: AgentError "os-utility" for bad padding. */
export function decodeBase64(text: string): Uint8Array {
  const digits = text.replace(/[^A-Za-z0-9+/=]/g, "");
  const body = digits.replace(/=+$/, "");
  if (body.includes("=") || body.length % 4 === 1 || digits.length % 4 !== 0)
    throw new AgentError("os-utility", "CustomData is not base64: its padding is wrong");
  return Buffer.from(body, "base64");
}

/**
 * Runs saved custom data to its end (CD-04), exactly once: a run that a killed agent left behind is picked up by its
 * number. A failing or overlong program is an ERROR in the log and a failed event, and provisioning goes on.
 */
export async function runCustomData(
  system: Machine,
  config: CustomDataConfig,
  options: {
    /** Number of the last run; 0 when there was none. */
    readonly run: number;
    /** Must be on disk when it returns. */
    readonly record: (run: number) => void;
  },
): Promise<void> {
  const file = customDataFile(config);
  if (!config["Provisioning.ExecuteCustomData"] || !system.files.exists(file)) return;
  let run = options.run;
  const request = () => ({
    stdout: `${file}.stdout` as const,
    stderr: `${file}.stderr` as const,
    runFile: `${file}.run.${run}` as const,
    timeoutMs: CUSTOM_DATA_LIMIT_MS,
    maxOutputBytes: MAX_OUTPUT_BYTES,
  });
  const start = (shellCommand: string): Promise<LaunchResult> => {
    run += 1;
    options.record(run);
    const environment = {
      PATH: system.root.programPath,
      HOME: "/root",
      AZURE_GUEST_AGENT_PARENT_PROCESS_NAME: "AZURE_GUEST_AGENT",
    };
    return system.launch.start({ ...request(), shellCommand, cwd: "/", environment }).wait();
  };
  // Of an earlier provisioning of this disk; within one, the numbers only grow.
  if (run === 0) for (const old of system.files.glob(`${file}.run.*`)) system.files.remove(old);
  const former = run === 0 ? undefined : await system.launch.settle(request().runFile);
  let result: LaunchResult;
  if (former === undefined || former.state === "never-started")
    result = await start(quoted(system.files.realPath(file)));
  else if (former.state === "running")
    result = await system.launch.attach(former.identity, request()).wait();
  else
    result = {
      code: former.state === "ended" ? former.code : undefined,
      timedOut: false,
      durationMs: 0,
    };
  // A state directory on a file system without the right to execute: the interpreter can still read it.
  if (result.code === NOT_EXECUTABLE && wasRefused(system, file))
    result = await start(throughInterpreter(system, file));
  const failure = result.timedOut
    ? `did not end within ${CUSTOM_DATA_LIMIT_MS / 60_000} minutes and was killed`
    : result.code === undefined
      ? "ended, but its exit code is not known"
      : result.code === 0
        ? undefined
        : `failed with exit code ${result.code}`;
  const message =
    failure === undefined
      ? "Custom data ran successfully"
      : `Custom data ${failure}; its output is in ${file}.stdout and ${file}.stderr`;
  if (failure === undefined) system.log.info(message);
  else system.log.error(message);
  system.emit({
    operation: "CustomData",
    success: failure === undefined,
    message,
    durationMs: result.durationMs,
    log: false,
  });
}

/** The notes of finished runs; only for a provisioning that is done, because a run without a note is run again. */
export function forgetRuns(system: Pick<System, "files">, config: Pick<Config, "Lib.Dir">): void {
  for (const note of system.files.glob(`${customDataFile(config)}.run.*`))
    system.files.remove(note);
}

/** The shell's own words; a program that merely ends with 126 must not run twice. */
function wasRefused(system: Pick<System, "files">, file: SystemPath): boolean {
  const said = Buffer.from(system.files.read(`${file}.stderr`)).toString("latin1");
  return said.includes(system.files.realPath(file)) && /permission denied/i.test(said);
}

function throughInterpreter(system: Pick<System, "files">, file: SystemPath): string {
  const head = Buffer.from(system.files.read(file)).toString("latin1").split("\n")[0] ?? "";
  const words = head.startsWith("#!") ? head.slice(2).trim().split(/\s+/) : ["/bin/sh"];
  return [...words, system.files.realPath(file)].map(quoted).join(" ");
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
