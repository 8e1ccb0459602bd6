import type { System } from "../system/system.ts";
import type { SystemPath } from "../system/root.ts";
import { adaptRow } from "./adapt.ts";
import { detectCapabilities } from "./capabilities.ts";
import type { Distro, Release } from "./distro.ts";
import { selectRow } from "./select.ts";
import { versionTokens } from "./version-order.ts";

type Machine = Pick<System, "files" | "exec">;

/** Everything about this machine's distribution: release, row of the matrix, capabilities applied. Never fails. */
export async function detectDistro(system: Machine): Promise<Distro> {
  const release = await detectRelease(system);
  const row = selectRow(release);
  const capabilities = detectCapabilities(system, row.serviceName);
  return { ...adaptRow(row, capabilities), release, capabilities, known: row.known };
}

/** The line of `provisioning.md` LOG-10, where the distribution is not known by name. */
export function unknownDistroWarning(distro: Distro): string | undefined {
  if (distro.known) return undefined;
  return `Unable to load distro implementation for ${distro.release.name}. Using default distro implementation instead.`;
}

const OS_RELEASE: readonly SystemPath[] = ["/etc/os-release", "/usr/lib/os-release"];
const UNKNOWN: Release = {
  name: "unknown",
  version: "FFFF",
  codeName: "",
  fullName: "unknown",
  like: [],
};

/** `provisioning.md` DIST-01..04. Unreadable or malformed sources count as absent. */
export async function detectRelease(system: Machine): Promise<Release> {
  const sources = OS_RELEASE.map((file) => readText(system, file));
  const osRelease = sources.find((text) => text !== undefined);
  const file = releaseFile(system);
  let release: Release;
  if (osRelease !== undefined) {
    release = fromOsRelease(system, parseOsRelease(osRelease), file);
  } else {
    release =
      fromOpenWrt(readText(system, "/etc/openwrt_release")) ??
      (await fromLsbRelease(system)) ??
      (file === undefined ? await fromUname(system) : fromReleaseFile(file));
  }
  const overridden = applyOverrides(system, release);
  return {
    name: clean(overridden.name).toLowerCase(),
    version:
      clean(overridden.version).toLowerCase() === "ffff" ? "FFFF" : clean(overridden.version),
    codeName: clean(overridden.codeName).toLowerCase(),
    fullName: clean(overridden.fullName),
    like: overridden.like,
  };
}

/** `KEY=value` lines with shell quoting; the last of equal keys wins (os-release(5)). */
export function parseOsRelease(text: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split("\n")) {
    const match = /^\s*([A-Za-z0-9_]+)=(.*?)\s*$/.exec(line);
    if (match !== null) values.set(match[1] ?? "", unquote(match[2] ?? ""));
  }
  return values;
}

function unquote(text: string): string {
  const quote = text[0];
  if (text.length >= 2 && (quote === '"' || quote === "'") && text.endsWith(quote)) {
    const inner = text.slice(1, -1);
    return quote === '"' ? inner.replace(/\\(["$`\\])/g, "$1") : inner;
  }
  return text;
}

interface ReleaseFile {
  readonly name: string;
  readonly version: string;
  readonly codeName: string;
  readonly fullName: string;
}

function fromOsRelease(
  system: Machine,
  values: ReadonlyMap<string, string>,
  file: ReleaseFile | undefined,
): Release {
  const name = normalName(values.get("ID") ?? file?.name ?? "");
  const like = (values.get("ID_LIKE") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const pretty = /(\d+(?:\.\d+)*)/.exec(values.get("PRETTY_NAME") ?? "")?.[1] ?? "";
  const candidates = [values.get("VERSION_ID") ?? "", file?.version ?? "", pretty];
  if (name === "debian" || like.includes("debian")) {
    candidates.push((readText(system, "/etc/debian_version") ?? "").trim());
  }
  const given = candidates.filter((version) => version !== "");
  const version = name.includes("mariner")
    ? given.reduce(
        (best, next) => (precision(next) > precision(best) ? next : best),
        given[0] ?? "",
      )
    : (given[0] ?? "");
  return {
    name: name === "" ? UNKNOWN.name : name,
    version,
    codeName:
      values.get("VERSION_CODENAME") ??
      values.get("UBUNTU_CODENAME") ??
      /\(([^)]*)\)/.exec(values.get("VERSION") ?? "")?.[1] ??
      "",
    fullName: values.get("NAME") ?? file?.fullName ?? name,
    like,
  };
}

/** DIST-01: blanks become `_`; a few names differ from what os-release says. */
function normalName(id: string): string {
  const name = id.trim().toLowerCase().replace(/\s+/g, "_");
  return { ol: "oracle", "opensuse-leap": "opensuse" }[name] ?? name;
}

async function fromLsbRelease(system: Machine): Promise<Release | undefined> {
  if (system.exec.find("lsb_release") === undefined) return undefined;
  try {
    const { stdout } = await system.exec.run({ argv: ["lsb_release", "-a"], timeoutMs: 10_000 });
    const field = (name: string): string =>
      new RegExp(`^${name}:\\s*(.*)$`, "m").exec(stdout)?.[1]?.trim() ?? "";
    const fullName = field("Distributor ID");
    if (fullName === "") return undefined;
    const name = normalName(fullName);
    return {
      name: name.startsWith("redhat") ? "rhel" : name,
      version: field("Release"),
      codeName: field("Codename"),
      fullName,
      like: [],
    };
  } catch {
    return undefined; // a broken lsb_release is as good as none: the release files are next
  }
}

/** `/etc/*-release` and `/etc/*_version` of systems without os-release: "CentOS release 6.10 (Final)". */
function releaseFile(system: Machine): ReleaseFile | undefined {
  const files = system.files
    .glob("/etc/*-release")
    .filter((file) => !/(os|lsb)-release$/.test(file));
  // redhat-release comes first: derivatives ship it besides their own, and it has the fullest text.
  const ordered = files.toSorted((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
  for (const file of ordered) {
    const line = readText(system, file)?.split("\n")[0]?.trim() ?? "";
    const match = /^(.*?)(?:\s+release)?\s+v?(\d[\w.]*)(?:.*?\(([^)]*)\))?/.exec(line);
    if (match === null) continue;
    const own = /\/etc\/(.*)-release$/.exec(file)?.[1] ?? "";
    return {
      name: own === "redhat" ? redHatName(line) : normalName(own),
      version: match[2] ?? "",
      codeName: match[3] ?? "",
      fullName: match[1] ?? "",
    };
  }
  return undefined;
}

function rank(file: string): number {
  return file.endsWith("/redhat-release") ? 0 : 1;
}

function redHatName(line: string): string {
  const word = /^(centos|oracle|fedora|almalinux|rocky|cloudlinux)/i.exec(line)?.[1];
  return word === undefined ? "rhel" : word.toLowerCase();
}

function fromReleaseFile(file: ReleaseFile): Release {
  return { ...file, like: [] };
}

function fromOpenWrt(text: string | undefined): Release | undefined {
  if (text === undefined) return undefined;
  const values = parseOsRelease(text);
  const id = values.get("DISTRIB_ID");
  if (id === undefined) return undefined;
  return {
    name: normalName(id),
    version: values.get("DISTRIB_RELEASE") ?? "",
    codeName: values.get("DISTRIB_CODENAME") ?? "",
    fullName: id,
    like: [],
  };
}

async function fromUname(system: Machine): Promise<Release> {
  try {
    const { stdout } = await system.exec.run({ argv: ["uname", "-s", "-r"], timeoutMs: 10_000 });
    const [kernel = "", version = ""] = stdout.trim().split(/\s+/);
    const name = { FreeBSD: "freebsd", OpenBSD: "openbsd", "NS-BSD": "nsbsd" }[kernel];
    if (name === undefined) return UNKNOWN;
    return { name, version: version.split("-")[0] ?? "", codeName: "", fullName: kernel, like: [] };
  } catch {
    return UNKNOWN; // without uname there is nothing left to ask
  }
}

/** DIST-03: a file's existence says more than os-release does; later ones win. */
function applyOverrides(system: Machine, release: Release): Release {
  const { files } = system;
  let result = release;
  if (files.exists("/etc/oracle-release")) {
    result = { ...result, codeName: "oracle", fullName: "Oracle Linux" };
  }
  if (files.exists("/etc/euleros-release")) result = { ...result, name: "euleros" };
  if (files.exists("/etc/UnionTech-release")) result = { ...result, name: "uos" };
  if (files.exists("/etc/mariner-release")) result = { ...result, name: "mariner" };
  if (files.exists("/shared/vadc")) result = f5Release(readText(system, "/VERSION")) ?? result;
  if (files.exists("/etc/cp-release")) {
    const values = colonValues(readText(system, "/etc/cloud-version"));
    result = {
      ...result,
      name: "gaia",
      version: `${values.get("take") ?? ""}.${values.get("build") ?? ""}`,
      codeName: values.get("release") ?? "",
      fullName: readText(system, "/etc/cp-release") ?? "",
      like: [],
    };
  }
  if (files.exists("/home/guestshell/azure")) {
    result = {
      name: "iosxe",
      version: "csr1000v",
      codeName: "",
      fullName: "Cisco IOSXE Linux",
      like: [],
    };
  }
  if (files.exists("/etc/photon-release")) result = { ...result, name: "photonos" };
  if (files.exists("/etc/alpaquita-release")) result = { ...result, name: "alpaquita" };
  return result;
}

const F5_PRODUCTS: Readonly<Record<string, string>> = {
  "BIG-IP": "bigip",
  "BIG-IQ": "bigiq",
  iWorkflow: "iworkflow",
};

function f5Release(text: string | undefined): Release | undefined {
  const values = colonValues(text);
  const product = values.get("product") ?? "";
  const name = F5_PRODUCTS[product];
  if (name === undefined) return undefined;
  return {
    name,
    version: values.get("version") ?? "",
    codeName: "",
    fullName: product,
    like: [],
  };
}

/** `Key: value` lines, keys in lower case. */
function colonValues(text: string | undefined): ReadonlyMap<string, string> {
  const pairs = (text ?? "").split("\n").flatMap((line): [string, string][] => {
    const at = line.indexOf(":");
    return at < 0 ? [] : [[line.slice(0, at).trim().toLowerCase(), line.slice(at + 1).trim()]];
  });
  return new Map(pairs);
}

/** DIST-02: of several versions the one with most parts. */
function precision(version: string): number {
  return versionTokens(version).length;
}

function clean(text: string): string {
  return text.replace(/^["'\s]+|["'\s]+$/g, "");
}

function readText(system: Machine, file: SystemPath): string | undefined {
  try {
    return system.files.readTextIfExists(file, { maxBytes: 64 * 1024 });
  } catch {
    return undefined; // unreadable or not text: the next source is asked
  }
}
