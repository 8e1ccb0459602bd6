import * as fs from "node:fs";
import { createConsola, type LogObject } from "consola/core";
import { redact } from "../base/redact.ts";
import { formatTimestamp6 } from "../base/time.ts";
import type { Clock } from "./clock.ts";
import type { Root, SystemPath } from "./root.ts";

export type LogLevel = "VERBOSE" | "INFO" | "WARNING" | "ERROR";

/** Field 3 and 4 of a line (`system.md` LOG-02). */
export interface LogIdentity {
  readonly thread?: string;
  readonly prefix?: string | undefined;
  /** A second file for these lines at INFO and above (CommandExecution.log, `extensions.md` EXT-85). */
  readonly also?: SystemPath;
}

export interface Logger {
  verbose(message: string): void;
  info(message: string): void;
  warning(message: string): void;
  error(message: string): void;
  /** Logs unless the same key was logged within `everyMs` (`system.md` LOG-08). The key defaults to the message. */
  periodically(level: LogLevel, everyMs: number, message: string, key?: string): void;
  /** A logger that shares everything but the given fields. */
  named(identity: LogIdentity): Logger;
  /** Changes thread and prefix of every logger that does not name its own: the process has entered another role. */
  become(identity: LogIdentity): void;
  /** From now on nothing goes to /dev/console (`system.md` LOG-06). */
  stopConsole(): void;
  /** Forgets what `periodically` has seen (`system.md` MON-03). */
  resetPeriodic(): void;
}

export interface LogOptions {
  readonly root: Root;
  readonly clock: Pick<Clock, "now" | "monotonic">;
  readonly identity: Required<Pick<LogIdentity, "thread">> & LogIdentity;
  readonly stdout:
    | {
        readonly level: LogLevel;
        readonly write: (line: string) => void;
        /** It is the journal: every line tells its priority, so that `journalctl -p` works (`system.md` BET-23). */
        readonly isJournal?: boolean;
      }
    | undefined;
  readonly file: { readonly level: LogLevel; readonly path: SystemPath } | undefined;
  readonly console: { readonly level: LogLevel; readonly path: SystemPath } | undefined;
}

const ORDER: Readonly<Record<LogLevel, number>> = { VERBOSE: 4, INFO: 3, WARNING: 1, ERROR: 0 };
/** Of syslog. */
const PRIORITIES: Readonly<Record<LogLevel, number>> = {
  VERBOSE: 7,
  INFO: 6,
  WARNING: 4,
  ERROR: 3,
};
const MAX_PERIODIC_KEYS = 1000;
const LOG_MODE = 0o640;

/** `<time> <LEVEL> <thread> [<prefix> ]<message>`, ASCII with backslash escapes (`system.md` LOG-01, LOG-03). */
export function formatLine(
  epochMs: number,
  level: LogLevel,
  identity: LogIdentity,
  message: string,
): string {
  const prefix =
    identity.prefix === undefined || identity.prefix === "" ? "" : `${identity.prefix} `;
  return `${formatTimestamp6(epochMs)} ${level} ${identity.thread ?? "MainThread"} ${prefix}${escapeNonAscii(redact(message))}\n`;
}

export function createLog(options: LogOptions): Logger {
  const periodic = new Map<string, number>();
  let consoleOn = options.console !== undefined;
  let role: LogIdentity = options.identity;

  const deliver = (level: LogLevel, identity: LogIdentity, message: string): void => {
    const line = formatLine(options.clock.now(), level, identity, message);
    const wanted = (limit: LogLevel): boolean => ORDER[level] <= ORDER[limit];
    if (options.stdout !== undefined && wanted(options.stdout.level))
      options.stdout.write(options.stdout.isJournal === true ? withPriority(level, line) : line);
    if (options.file !== undefined && wanted(options.file.level))
      appendLine(options.root, options.file.path, line);
    if (identity.also !== undefined && wanted("INFO"))
      appendLine(options.root, identity.also, line);
    if (consoleOn && options.console !== undefined && wanted(options.console.level)) {
      writeConsole(options.root, options.console.path, line);
    }
  };

  const sink = createConsola({
    level: ORDER.VERBOSE,
    throttle: 0,
    reporters: [
      { log: (entry: LogObject) => deliver(...(entry.args as [LogLevel, LogIdentity, string])) },
    ],
  });

  const make = (identity: LogIdentity): Logger => {
    const log = (level: LogLevel, message: string): void => {
      // The type only decides consola's own level filter, which is open; the real level travels in the arguments.
      sink.log(level, { ...role, ...identity }, message);
    };
    return {
      verbose: (message) => log("VERBOSE", message),
      info: (message) => log("INFO", message),
      warning: (message) => log("WARNING", message),
      error: (message) => log("ERROR", message),
      periodically: (level, everyMs, message, key = message) => {
        const now = options.clock.monotonic();
        const last = periodic.get(key);
        if (last !== undefined && now - last < everyMs) return;
        if (periodic.size >= MAX_PERIODIC_KEYS) periodic.clear();
        periodic.set(key, now);
        log(level, message);
      },
      named: (other) => make({ ...identity, ...other }),
      become: (other) => {
        role = other;
      },
      stopConsole: () => {
        consoleOn = false;
      },
      resetPeriodic: () => periodic.clear(),
    };
  };
  return make({});
}

/** sd-daemon(3); the journal takes the mark away. It stores each line of a message by itself. */
function withPriority(level: LogLevel, lines: string): string {
  return lines.replace(/^(?=.)/gm, `<${PRIORITIES[level]}>`);
}

/** Opened, appended and closed per line, so logrotate needs no signal (`system.md` LOG-07). */
function appendLine(root: Root, file: SystemPath, line: string): void {
  try {
    const descriptor = fs.openSync(
      root.real(file),
      fs.constants.O_WRONLY | fs.constants.O_APPEND | fs.constants.O_CREAT,
      LOG_MODE,
    );
    try {
      fs.writeSync(descriptor, line);
    } finally {
      fs.closeSync(descriptor);
    }
  } catch {
    // A log that cannot be written (disk full, read-only) must not stop the agent; stdout still has the line.
  }
}

function writeConsole(root: Root, file: SystemPath, line: string): void {
  try {
    const flags = fs.constants.O_WRONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOCTTY;
    const descriptor = fs.openSync(root.real(file), flags);
    try {
      fs.writeSync(descriptor, line);
    } finally {
      fs.closeSync(descriptor);
    }
  } catch {
    // no console, or it does not take data now: it is an extra channel only
  }
}

function escapeNonAscii(text: string): string {
  return text.replace(/[^\t\n\r\x20-\x7e]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    if (code <= 0xff) return `\\x${code.toString(16).padStart(2, "0")}`;
    if (code <= 0xffff) return `\\u${code.toString(16).padStart(4, "0")}`;
    return `\\U${code.toString(16).padStart(8, "0")}`;
  });
}
