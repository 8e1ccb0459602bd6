/** The process itself: arguments, environment, signals, exit. The only such place besides the other seams. */
import * as fs from "node:fs";
import { errnoOf } from "../base/error.ts";

/** Variables that change what the runtime does or whom it trusts; children never see the environment anyway. */
const DANGEROUS = [/^BUN_/, /^NODE_/, /^SSL_CERT_/, /^OPENSSL_CONF$/, /^LD_/];

/** First thing in main: forgets what could steer the runtime and takes a safe umask. */
export function settle(): void {
  for (const name of Object.keys(process.env)) {
    if (DANGEROUS.some((pattern) => pattern.test(name))) delete process.env[name];
  }
  process.umask(0o022);
  if (!isTerminal()) process.env["NO_COLOR"] = "1";
}

/** Arguments after the program's name. */
export function argv(): readonly string[] {
  return process.argv.slice(2);
}

/** Real path of this executable; `/proc/self/exe` still runs after it was replaced. */
export function executablePath(): string {
  return process.execPath;
}

/** How this program was called, for usage texts. */
export function programName(): string {
  return Bun.isStandaloneExecutable ? process.argv0 : "waagent";
}

/**
 * The words that start this program again (`system.md` THR-10): in a compiled program argv[0] says `bun`, so the real
 * path counts. During development the runtime and the entry file.
 */
export function selfCommand(): readonly string[] {
  return Bun.isStandaloneExecutable ? [process.execPath] : [process.execPath, Bun.main];
}

/** The working directory as an absolute path. */
export function workingDirectory(): string {
  return process.cwd();
}

export function environment(): Readonly<Record<string, string | undefined>> {
  return { ...process.env };
}

export function pid(): number {
  return process.pid;
}

export function parentPid(): number {
  return process.ppid;
}

export function userId(): number {
  return process.getuid?.() ?? 0;
}

export function runtimeVersion(): string {
  return Bun.version;
}

export function architecture(): string {
  return process.arch === "x64" ? "x86_64" : process.arch === "arm64" ? "aarch64" : process.arch;
}

/** Standard output goes to the journal: systemd names the stream it has made (systemd.exec(5), JOURNAL_STREAM). */
export function isJournal(): boolean {
  const [device, inode] = (process.env["JOURNAL_STREAM"] ?? "").split(":");
  try {
    const { dev, ino } = fs.fstatSync(STDOUT, { bigint: true });
    return String(dev) === device && String(ino) === inode;
  } catch {
    return false; // standard output is closed
  }
}

/** Whether standard output is a character device. `process.stdout.isTTY` would cost 3 ms of every start. */
export function isTerminal(): boolean {
  try {
    return fs.fstatSync(STDOUT).isCharacterDevice();
  } catch {
    return false; // closed
  }
}

/** Writes all of it before it returns. A reader that is gone, or takes nothing for a second, loses the rest. */
export function writeStdout(text: string): void {
  writeAll(STDOUT, text);
}

export function writeStderr(text: string): void {
  writeAll(STDERR, text);
}

const STDOUT = 1;
const STDERR = 2;
const PATIENCE_MS = 1000;
const PAUSE_MS = 5;

function writeAll(descriptor: number, text: string): void {
  const bytes = Buffer.from(text);
  let waited = 0;
  for (let done = 0; done < bytes.length;) {
    try {
      done += fs.writeSync(descriptor, bytes, done);
      waited = 0;
    } catch (error) {
      // EAGAIN: somebody made the pipe non-blocking and it is full. Anything else (EPIPE, EBADF): nobody reads.
      if (errnoOf(error) !== "EAGAIN" || waited >= PATIENCE_MS) return;
      waited += PAUSE_MS;
      Bun.sleepSync(PAUSE_MS);
    }
  }
}

export function exit(code: number): never {
  process.exit(code);
}

export function onSignal(signal: "SIGTERM" | "SIGINT" | "SIGHUP", handler: () => void): void {
  process.on(signal, handler);
}

/** Nothing may go on after an error nobody caught: state on disk is whole, the service manager starts us again. */
export function onUncaught(handler: (error: unknown) => void): void {
  process.on("uncaughtException", handler);
  process.on("unhandledRejection", handler);
}

/** Starts a detached copy of a program with all of its streams on /dev/null (`-start`, `system.md` INIT-04). */
export function spawnDetached(
  command: readonly string[],
  environmentOfChild: Readonly<Record<string, string>>,
): number {
  const child = Bun.spawn([...command], {
    cwd: "/",
    env: { ...environmentOfChild },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
    detached: true,
  });
  child.unref();
  return child.pid;
}

/** One line of standard input without its end; undefined at the end of the input. */
export async function readStdinLine(): Promise<string | undefined> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of process.stdin as AsyncIterable<Uint8Array>) {
    text += decoder.decode(chunk, { stream: true });
    const end = text.indexOf("\n");
    if (end >= 0) return text.slice(0, end).replace(/\r$/, "");
  }
  return text === "" ? undefined : text;
}
