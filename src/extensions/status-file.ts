import type { ExtensionStatus } from "../azure/vm-status.ts";
import { AgentError, describe, errnoOf } from "../base/error.ts";
import { formatJson, JsonNumber, JsonReader, toJson, type Json } from "../base/json.ts";
import { redact } from "../base/redact.ts";
import { formatTimestamp0 } from "../base/time.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { CODE } from "./failure.ts";
import { sequenceFile, statusOf, type HandlerRef, type Layout } from "./layout.ts";

/** Characters of decoded text from which texts are cut (`extensions.md` EXT-104, `wire-protocol.md` STAT-34). */
const LARGE = 131_072;
const MAX_MESSAGE = 1024;
const MAX_SUBSTATUS_TEXT = 10_240;
const TRUNCATED = " ... [TRUNCATED]";
const QUOTED = 2000;
/** More is not looked at: no honest status file is that large, and it would cost memory at every report. */
const MAX_BYTES = 64 * 1024 * 1024;
const STATUSES: readonly string[] = ["transitioning", "warning", "error", "success"];

export interface StatusSource {
  readonly handler: HandlerRef;
  /** `<Handler>` or `<Handler>.<Ext>`, for texts and for what the agent writes in the extension's place. */
  readonly name: string;
  /** Only for multi-config. */
  readonly extension: string | undefined;
  readonly sequence: number;
}

export function statusFileOf(layout: Layout, source: StatusSource): SystemPath {
  const name = sequenceFile(source.sequence, "status", source.extension);
  return join(statusOf(layout, source.handler), name);
}

/** What an extension says about itself, or what has to be said in its place. Never throws (EXT-107, DB-05). */
export function readStatusFile(
  system: Pick<System, "files">,
  layout: Layout,
  source: StatusSource,
): ExtensionStatus {
  const file = statusFileOf(layout, source);
  let text: string;
  try {
    const stat = system.files.stat(file);
    if (stat === undefined) return missing(source, file);
    if (stat.size > MAX_BYTES)
      return substitute(
        source,
        "error",
        CODE.statusFile,
        `The status file ${file} has ${stat.size} bytes, more than can be reported`,
      );
    text = decode(system.files.read(file, { maxBytes: MAX_BYTES }));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return missing(source, file);
    return substitute(
      source,
      "error",
      CODE.unknown,
      `The agent could not read the status file ${file}: ${describe(error)}`,
    );
  }
  let reader: JsonReader;
  try {
    reader = JsonReader.parse(text, file);
  } catch (error) {
    return substitute(
      source,
      "error",
      CODE.statusFile,
      `The status file ${file} has an incorrect format: ${describe(error)}. First ${QUOTED} bytes: ${text.slice(0, QUOTED)}`,
    );
  }
  try {
    const status = { ...parseStatus(reader), name: reportedName(source) };
    return text.length > LARGE ? cut(status) : status;
  } catch (error) {
    return substitute(
      source,
      "error",
      CODE.statusFile,
      `Could not get a valid status from ${file}: ${describe(error)}`,
    );
  }
}

/** Until a file is this old it may be written again without looking different. */
const SETTLED_MS = 2000;
const MAX_REMEMBERED = 1000;

/**
 * `readStatusFile` for every report: a file that has not changed since is not read again, however large it is, so that
 * an idle poll only looks at times and sizes.
 */
export function createStatusReader(
  system: Pick<System, "files" | "clock">,
  layout: Layout,
): (source: StatusSource) => ExtensionStatus {
  const known = new Map<SystemPath, { readonly stamp: string; readonly status: ExtensionStatus }>();
  return (source) => {
    const file = statusFileOf(layout, source);
    const stamp = stampOf(system, file);
    const before = known.get(file);
    if (before !== undefined && before.stamp === stamp) return before.status;
    const status = readStatusFile(system, layout, source);
    known.delete(file);
    if (known.size >= MAX_REMEMBERED) known.clear();
    // A failure to read may pass although the file stays as it is.
    if (stamp !== undefined && status.status !== "error") known.set(file, { stamp, status });
    return status;
  };
}

/** Changes with the file; undefined while it is absent or was changed a moment ago. */
function stampOf(system: Pick<System, "files" | "clock">, file: SystemPath): string | undefined {
  try {
    const stat = system.files.stat(file);
    if (stat === undefined || stat.kind !== "file") return undefined;
    if (Math.abs(system.clock.now() - stat.changedMs) < SETTLED_MS) return undefined;
    return [stat.device, stat.inode, stat.size, stat.modifiedMs, stat.changedMs].join(":");
  } catch {
    return undefined; // reading it says what is wrong
  }
}

/** The platform's own name for what is reported; what the file calls itself does not count. */
function reportedName(source: StatusSource): string {
  return source.extension ?? source.handler.name;
}

/** Without the name. Errors: AgentError "bad-input" with the place in the document (STAT-31). */
export function parseStatus(reader: JsonReader): ExtensionStatus {
  if (reader.value === null || (Array.isArray(reader.value) && reader.value.length === 0))
    return EMPTY;
  const first = reader.items()[0] ?? reader;
  const status = first.get("status");
  first.object();
  status.object();
  const word = status.get("status");
  const message = formattedMessage(status.get("formattedMessage"));
  const substatus = status.get("substatus");
  return {
    name: null,
    operation: status.get("operation").value ?? null,
    status: word.isAbsent ? failAbsent(word) : knownOrError(word),
    code: status.get("code").value ?? new JsonNumber("0"),
    configurationAppliedTime: status.get("configurationAppliedTime").value ?? null,
    message,
    substatuses: substatus.isAbsent
      ? []
      : substatus
          .items()
          .filter((item) => item.value !== null)
          .map((item) => {
            item.object();
            const state = item.get("status").string();
            if (!STATUSES.includes(state))
              throw item.get("status").expected(`one of ${STATUSES.join(", ")}`);
            return {
              name: textOrNull(item.get("name")),
              status: state,
              code: item.get("code").value ?? new JsonNumber("0"),
              message: formattedMessage(item.get("formattedMessage")),
            };
          }),
  };
}

const EMPTY: ExtensionStatus = {
  name: null,
  operation: null,
  status: null,
  code: null,
  configurationAppliedTime: null,
  message: null,
  substatuses: [],
};

function failAbsent(reader: JsonReader): never {
  throw reader.expected("a status word");
}

/** An unknown word counts as an error of the extension (EXT-102). */
function knownOrError(reader: JsonReader): string {
  const value = reader.value;
  return typeof value === "string" && STATUSES.includes(value) ? value : "error";
}

function formattedMessage(reader: JsonReader): string | null {
  if (reader.isAbsent) return null;
  reader.object();
  for (const key of ["lang", "message"]) {
    if (reader.get(key).isMissing) throw reader.get(key).expected("there");
  }
  return textOrNull(reader.get("message"));
}

/** Texts of other types are passed on as they are written. */
function textOrNull(reader: JsonReader): string | null {
  const { value } = reader;
  if (value === undefined || value === null) return null;
  return redact(typeof value === "string" ? value : formatJson(value));
}

/** EXT-104, STAT-34. */
function cut(status: ExtensionStatus): ExtensionStatus {
  const message = shorten(status.message, MAX_MESSAGE);
  let total = message?.length ?? 0;
  const substatuses: ExtensionStatus["substatuses"][number][] = [];
  for (const entry of status.substatuses) {
    const name = shorten(entry.name, MAX_SUBSTATUS_TEXT);
    const text = shorten(entry.message, MAX_SUBSTATUS_TEXT);
    total += (name?.length ?? 0) + (text?.length ?? 0);
    if (total > LARGE) break;
    substatuses.push({ ...entry, name, message: text });
  }
  return { ...status, message, substatuses };
}

function shorten(text: string | null, limit: number): string | null {
  if (text === null || text.length < limit) return text;
  return `${text.slice(0, limit - TRUNCATED.length)}${TRUNCATED}`.toWellFormed();
}

function missing(source: StatusSource, file: SystemPath): ExtensionStatus {
  return substitute(
    source,
    "transitioning",
    CODE.success,
    `This status is being reported by the Guest Agent since no status file was reported by extension ${source.name}: [ExtensionStatusError] Status file ${file} does not exist`,
  );
}

export function substitute(
  source: Pick<StatusSource, "handler" | "extension">,
  status: "transitioning" | "error",
  code: number,
  message: string,
): ExtensionStatus {
  return {
    ...EMPTY,
    name: source.extension ?? source.handler.name,
    status,
    code: new JsonNumber(String(code)),
    message: redact(message),
  };
}

/** UTF-8 or, with a byte order mark, UTF-16; a status in another encoding is still better than none. */
function decode(bytes: Uint8Array): string {
  const [first, second] = bytes;
  const encoding =
    first === 0xff && second === 0xfe
      ? "utf-16le"
      : first === 0xfe && second === 0xff
        ? "utf-16be"
        : "utf-8";
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch (error) {
    if (encoding !== "utf-8")
      throw new AgentError("bad-input", "it is not UTF-16 text", { cause: error });
    return new TextDecoder("utf-8").decode(bytes);
  }
}

export interface Placeholder {
  readonly operation: string | null;
  readonly status: "error" | "transitioning" | "success";
  readonly code: number;
  readonly message: string;
}

/**
 * Writes a status in the place of an extension that cannot (EXT-109, STAT-37). One that is there already is only
 * replaced with `overwrite`. Errors: AgentError "io".
 */
export function writePlaceholder(
  system: Pick<System, "files" | "clock">,
  layout: Layout,
  source: StatusSource,
  placeholder: Placeholder,
  options: { readonly overwrite: boolean },
): void {
  const file = statusFileOf(layout, source);
  if (!options.overwrite && system.files.lstat(file) !== undefined) return;
  const document: Json = toJson([
    {
      version: new JsonNumber("1.0"),
      timestampUTC: formatTimestamp0(system.clock.now()),
      status: {
        name: source.name,
        operation: placeholder.operation,
        status: placeholder.status,
        code: placeholder.code,
        formattedMessage: { lang: "en-US", message: redact(placeholder.message) },
      },
    },
  ]);
  system.files.makeDirectory(statusOf(layout, source.handler), { mode: 0o700, keepMode: true });
  system.files.write(file, formatJson(document), { mode: 0o600 });
}
