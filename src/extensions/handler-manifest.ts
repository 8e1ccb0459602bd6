import { describe } from "../base/error.ts";
import { JsonNumber, JsonReader, type Json } from "../base/json.ts";
import { join } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { CODE, HandlerError } from "./failure.ts";
import { baseOf, type HandlerRef, type Layout } from "./layout.ts";

export type Operation = "install" | "enable" | "update" | "disable" | "uninstall";

/** `HandlerManifest.json` of a package, with all its leniencies resolved (`extensions.md` §5, EXT-50). */
export interface HandlerManifest {
  /** Relative to the base directory, arguments included; undefined when the package has no such command. */
  readonly commands: Readonly<Record<Operation, string | undefined>>;
  readonly reportHeartbeat: boolean;
  /** `updateMode` is UpdateWithInstall, or absent. */
  readonly updateWithInstall: boolean;
  readonly continueOnUpdateFailure: boolean;
  readonly supportsMultipleExtensions: boolean;
  readonly resourceLimits: ResourceLimits;
  readonly signingInfo:
    { readonly type: string; readonly publisher: string; readonly version: string } | undefined;
  /** Keys that should be true or false and are not; reported once each. */
  readonly oddBooleans: readonly string[];
}

/** Percent of one core and MiB; undefined means no limit. */
export interface Limits {
  readonly cpuQuotaPercentage: number | undefined;
  readonly memoryQuotaInMB: number | undefined;
}

export interface ResourceLimits extends Limits {
  readonly services: readonly (Limits & { readonly name: string })[];
}

const OPERATIONS: readonly Operation[] = ["install", "enable", "update", "disable", "uninstall"];
const MAX_BYTES = 4 * 1024 * 1024;

/** Errors: HandlerError 1002 when it cannot be read, 1003 when it cannot be understood (EXT-51). */
export function readHandlerManifest(
  system: Pick<System, "files">,
  layout: Layout,
  handler: HandlerRef,
): HandlerManifest {
  const file = join(baseOf(layout, handler), "HandlerManifest.json");
  let text: string;
  try {
    text = system.files.readText(file, { maxBytes: MAX_BYTES });
  } catch (error) {
    throw new HandlerError(CODE.manifestNotFound, `Could not read ${file}`, { cause: error });
  }
  return parseHandlerManifest(text, file);
}

/** Errors: HandlerError 1003. */
export function parseHandlerManifest(text: string, what: string): HandlerManifest {
  try {
    const first = JsonReader.parse(text, what).items()[0];
    if (first === undefined) throw new JsonReader(undefined, what, "/0").expected("an object");
    first.object();
    const section = first.get("handlerManifest");
    section.object();
    const odd: string[] = [];
    const flag = (key: string): boolean => {
      const { value } = section.get(key);
      if (value === undefined || typeof value === "boolean") return value ?? false;
      odd.push(key);
      return typeof value === "string" && value.toLowerCase() === "true";
    };
    const updateMode = section.get("updateMode").value;
    return {
      commands: Object.fromEntries(
        OPERATIONS.map((operation) => [operation, commandIn(section, operation)]),
      ) as HandlerManifest["commands"],
      reportHeartbeat: flag("reportHeartbeat"),
      updateWithInstall:
        updateMode === undefined ||
        updateMode === null ||
        (typeof updateMode === "string" && updateMode.toLowerCase() === "updatewithinstall"),
      continueOnUpdateFailure: flag("continueOnUpdateFailure"),
      supportsMultipleExtensions: flag("supportsMultipleExtensions"),
      resourceLimits: limitsIn(first.get("resourceLimits")),
      signingInfo: signingInfoIn(first.get("signingInfo")),
      oddBooleans: odd,
    };
  } catch (error) {
    throw new HandlerError(CODE.manifestMalformed, describe(error), { cause: error });
  }
}

/** Errors: HandlerError 1003 when the package has no such command. */
export function commandFor(
  manifest: HandlerManifest,
  operation: Operation,
  handler: HandlerRef,
): string {
  const command = manifest.commands[operation];
  if (command !== undefined) return command;
  throw new HandlerError(
    CODE.manifestMalformed,
    `The manifest of ${handler.name} ${handler.version} has no ${operation}Command`,
  );
}

function commandIn(section: JsonReader, operation: Operation): string | undefined {
  const { value } = section.get(`${operation}Command`);
  return typeof value === "string" ? value.replace(/^\/+/, "") : undefined;
}

function limitsIn(reader: JsonReader): ResourceLimits {
  const services = reader.get("services");
  return {
    ...limitPair(reader),
    services: (Array.isArray(services.value) ? services.items() : []).flatMap((service) => {
      const name = service.get("name").value;
      return typeof name === "string" && /^[\w@:.\\-]{1,200}$/.test(name)
        ? [{ name, ...limitPair(service) }]
        : [];
    }),
  };
}

function limitPair(reader: JsonReader): Limits {
  return {
    cpuQuotaPercentage: positive(reader.get("cpuQuotaPercentage").value),
    memoryQuotaInMB: positive(reader.get("memoryQuotaInMB").value),
  };
}

function positive(value: Json | undefined): number | undefined {
  const number =
    value instanceof JsonNumber
      ? value.toNumber()
      : typeof value === "string" && /^\d+$/.test(value)
        ? Number(value)
        : undefined;
  return number !== undefined && Number.isFinite(number) && number > 0
    ? Math.floor(number)
    : undefined;
}

function signingInfoIn(reader: JsonReader): HandlerManifest["signingInfo"] {
  const [type, publisher, version] = ["type", "publisher", "version"].map(
    (key) => reader.get(key).value,
  );
  return typeof type === "string" && typeof publisher === "string" && typeof version === "string"
    ? { type, publisher, version }
    : undefined;
}
