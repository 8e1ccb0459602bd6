import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { AgentError } from "../../src/base/error.ts";
import { Secret } from "../../src/base/secret.ts";
import type { TelemetryEvent } from "../../src/system/event.ts";
import type { Command, CommandResult, Exec } from "../../src/system/exec.ts";
import { createFiles } from "../../src/system/files.ts";
import type { Http, HttpRequest, HttpResponse } from "../../src/system/http.ts";
import { createLaunch } from "../../src/system/launch.ts";
import { createLog } from "../../src/system/log.ts";
import { Root } from "../../src/system/root.ts";
import type { System } from "../../src/system/system.ts";
import { FakeClock } from "./clock.ts";
import { fakePrefix } from "./leftovers.ts";

/** What a fake program does: it sees arguments and standard input, and may change the fake machine's files. */
export type FakeProgram = (
  argv: readonly string[],
  stdin: string,
) =>
  | Partial<{ code: number; stdout: string; stderr: string }>
  | void
  | Promise<Partial<{ code: number; stdout: string; stderr: string }> | void>;

export type FakeRoute = (request: HttpRequest) =>
  | Partial<{
      status: number;
      reason: string;
      headers: Record<string, string>;
      body: string | Uint8Array;
    }>
  | Error
  | Promise<
      | Partial<{
          status: number;
          reason: string;
          headers: Record<string, string>;
          body: string | Uint8Array;
        }>
      | Error
    >;

/** A machine with state: real files in a scratch directory, programs and an HTTP peer that tests write. */
export interface FakeSystem extends System {
  readonly clock: FakeClock;
  /** Every program that was run, in order. */
  readonly commands: string[][];
  readonly requests: HttpRequest[];
  readonly events: TelemetryEvent[];
  /** Log lines without time, e.g. "INFO Daemon Daemon text". */
  readonly lines: string[];
  readonly programs: Map<string, FakeProgram>;
  /** Answers every request; default is connection refused. */
  route: FakeRoute;
  [Symbol.dispose](): void;
}

export function createFakeSystem(options: { now?: number; automatic?: boolean } = {}): FakeSystem {
  const directory = mkdtempSync(path.join(tmpdir(), fakePrefix()));
  mkdirSync(path.join(directory, "tmp"));
  const root = new Root(directory);
  const clock = new FakeClock(options);
  const files = createFiles(root);
  const commands: string[][] = [];
  const requests: HttpRequest[] = [];
  const events: TelemetryEvent[] = [];
  const lines: string[] = [];
  const programs = new Map<string, FakeProgram>();

  const run = async (command: Command): Promise<CommandResult> => {
    const [program = "", ...rest] = command.argv;
    commands.push([...command.argv]);
    const fake = programs.get(program) ?? programs.get(path.basename(program));
    if (fake === undefined)
      throw new AgentError("program-missing", `The program ${program} is not installed`);
    const stdin =
      command.stdin instanceof Secret
        ? command.stdin.reveal()
        : typeof command.stdin === "string"
          ? command.stdin
          : new TextDecoder().decode(command.stdin ?? new Uint8Array());
    const outcome = (await fake([program, ...rest], stdin)) ?? {};
    const { code = 0, stdout = "", stderr = "" } = outcome;
    const allowed = command.okCodes ?? [0];
    if (allowed !== "any" && !allowed.includes(code)) {
      throw new AgentError(
        "exec",
        `${command.argv.join(" ")} failed with exit code ${code}: ${stderr || stdout}`,
        { status: code },
      );
    }
    return { code, stdout, stderr, stdoutBytes: new TextEncoder().encode(stdout) };
  };
  const exec: Exec = {
    run,
    find: (program) =>
      programs.has(path.basename(program)) ? `/usr/bin/${path.basename(program)}` : undefined,
  };

  const answer = async (request: HttpRequest): Promise<HttpResponse> => {
    requests.push(request);
    const result = await system.route(request);
    if (result instanceof Error) throw result;
    const body =
      typeof result.body === "string"
        ? new TextEncoder().encode(result.body)
        : (result.body ?? new Uint8Array());
    return {
      status: result.status ?? 200,
      reason: result.reason ?? "",
      headers: new Map(
        Object.entries(result.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]),
      ),
      body,
      text: () => new TextDecoder("utf-8", { fatal: true }).decode(body),
    };
  };
  const http: Http = {
    request: answer,
    download: async (request, file) => {
      const response = await answer(request);
      if (response.status !== 200) return { ...response, bytes: 0 };
      files.write(file, response.body, { mode: 0o600 });
      return { ...response, bytes: response.body.length };
    },
  };

  const system: FakeSystem = {
    root,
    files,
    exec,
    http,
    clock,
    launch: createLaunch(root),
    log: createLog({
      root,
      clock,
      identity: { thread: "ExtHandler", prefix: "ExtHandler" },
      stdout: {
        level: "VERBOSE",
        write: (line) => lines.push(line.replace(/^\S+ /, "").trimEnd()),
      },
      file: undefined,
      console: undefined,
    }),
    emit: (event) => void events.push(event),
    commands,
    requests,
    events,
    lines,
    programs,
    route: (request) =>
      new AgentError(
        "http",
        `${request.method} ${request.url.split("?")[0]} failed: connection refused`,
        { errno: "ECONNREFUSED" },
      ),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
  return system;
}
