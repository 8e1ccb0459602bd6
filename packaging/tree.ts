import fs from "node:fs";
import path from "node:path";
import { completionFor } from "../src/cli/completion.ts";
import { manualPage } from "../src/cli/manual.ts";
import { defaultFile, type DefaultFileName } from "../src/config/default-file.ts";
import { DATE_OF_RELEASE } from "./product.ts";
import {
  azureSlice,
  execStartDropIn,
  extensionsSlice,
  FAMILIES,
  type FamilyName,
  preset,
  serviceUnit,
  upholdsDropIn,
} from "./systemd.ts";
import { productUuidRules, storageRules } from "./udev.ts";

/** One file of an installation; `path` is absolute on the machine it gets to. */
export interface Entry {
  readonly path: string;
  readonly mode: number;
  readonly content: string | Uint8Array;
}

export interface TreeOptions {
  readonly family: FamilyName;
  readonly configuration: DefaultFileName;
  readonly executable: Uint8Array;
  /** Names of the udev rules files: the standard ones, or own ones beside a package that has the standard ones. */
  readonly udev: "standard" | "own";
  /** Whether files below /etc are part of the tree; otherwise they are seeded from /usr/share/waagent. */
  readonly etc: boolean;
  readonly documentation: string;
}

const files = path.join(import.meta.dir, "files");
const project = path.resolve(import.meta.dir, "..");
const text = (name: string) => fs.readFileSync(path.join(files, name), "utf8");

/** What Flatcar sets differently (`system.md` PKG-10): the system's own tools make users, host keys and updates. */
const FLATCAR_CONFIGURATION = {
  "Provisioning.Agent": "waagent",
  "Provisioning.DeleteRootPassword": "n",
  "Provisioning.RegenerateSshHostKeyPair": "n",
  "Provisioning.SshHostKeyPairType": "auto",
  "Provisioning.DecodeCustomData": "y",
  "ResourceDisk.Format": "y",
  "AutoUpdate.Enabled": "n",
} as const;

/** The text with other values, each on the key's own line where it has one, commented out or not. */
function changed(text: string, values: Readonly<Record<string, string>>): string {
  return Object.entries(values).reduce((before, [key, value]) => {
    const line = new RegExp(`^(?:# )?${key.replaceAll(".", "\\.")}=.*$`, "m");
    return line.test(before)
      ? before.replace(line, `${key}=${value}`)
      : `${before}\n${key}=${value}\n`;
  }, text);
}

/** Everything an installation consists of. */
export function tree(options: TreeOptions): Entry[] {
  const { binary } = FAMILIES[options.family];
  const units = "/usr/lib/systemd/system";
  const shared = "/usr/share/waagent";
  const configuration = changed(
    defaultFile(options.configuration),
    options.family === "sysext" ? FLATCAR_CONFIGURATION : {},
  );
  const plain = (where: string, content: string): Entry => ({ path: where, mode: 0o644, content });
  const udevName = (standard: string) =>
    options.udev === "standard" ? standard : standard.replace("azure-", "waagent-");
  const entries: Entry[] = [
    { path: binary, mode: 0o755, content: options.executable },
    plain(`${units}/waagent.service`, serviceUnit(options.family)),
    plain(`${units}/azure.slice`, azureSlice()),
    plain(`${units}/azure-vmextensions.slice`, extensionsSlice()),
    plain(`/usr/lib/udev/rules.d/${udevName("66-azure-storage.rules")}`, storageRules()),
    plain(`/usr/lib/udev/rules.d/${udevName("99-azure-product-uuid.rules")}`, productUuidRules()),
    plain(`${shared}/waagent.conf`, configuration),
    plain(`${shared}/waagent.logrotate`, text("waagent.logrotate")),
    plain(`${shared}/replace-execstart.conf`, execStartDropIn(binary)),
    plain("/usr/share/bash-completion/completions/waagent", completionFor("bash")),
    plain("/usr/share/zsh/site-functions/_waagent", completionFor("zsh")),
    plain("/usr/share/fish/vendor_completions.d/waagent.fish", completionFor("fish")),
    {
      path: "/usr/share/man/man8/waagent.8.gz",
      mode: 0o644,
      content: Bun.gzipSync(Buffer.from(manualPage()), { level: 9 }),
    },
    plain(`${options.documentation}/copyright`, copyright(options.family)),
  ];
  if (options.etc) {
    entries.push(
      plain("/etc/waagent.conf", configuration),
      plain("/etc/logrotate.d/waagent.logrotate", text("waagent.logrotate")),
    );
  }
  return entries;
}

/** Further files of an extension image: merged into `/usr` after boot, so it must pull its service in by itself. */
export function sysextEntries(architecture: string): Entry[] {
  return [
    {
      path: "/usr/lib/extension-release.d/extension-release.waagent",
      mode: 0o644,
      content: `ID=_any\nARCHITECTURE=${architecture}\nEXTENSION_RELOAD_MANAGER=1\n`,
    },
    {
      path: "/usr/lib/systemd/system/multi-user.target.d/10-waagent.conf",
      mode: 0o644,
      content: upholdsDropIn(),
    },
  ];
}

/** The service of systems with OpenRC. */
export function openrcScript(): string {
  return text("waagent.openrc");
}

/** For service managers other than systemd; in the plain archive. */
export function otherInitEntries(): Entry[] {
  return [
    { path: "/usr/share/waagent/init/openrc", mode: 0o755, content: openrcScript() },
    { path: "/usr/share/waagent/init/sysv", mode: 0o755, content: text("waagent.sysv") },
    { path: "/usr/share/waagent/90-waagent.preset", mode: 0o644, content: preset() },
  ];
}

/** Writes entries below a folder, with the date of the release on every file and folder. */
export function writeTree(folder: string, entries: readonly Entry[]): void {
  const touched = new Set<string>([folder]);
  for (const entry of entries) {
    const real = path.join(folder, entry.path);
    fs.mkdirSync(path.dirname(real), { recursive: true, mode: 0o755 });
    fs.writeFileSync(real, entry.content);
    fs.chmodSync(real, entry.mode);
    fs.utimesSync(real, DATE_OF_RELEASE, DATE_OF_RELEASE);
    for (
      let at = path.dirname(real);
      at.startsWith(folder) && at !== folder;
      at = path.dirname(at)
    ) {
      touched.add(at);
    }
  }
  for (const directory of touched) {
    fs.chmodSync(directory, 0o755);
    fs.utimesSync(directory, DATE_OF_RELEASE, DATE_OF_RELEASE);
  }
}

/** Debian wants a reference to its own copy of the license, others the text. */
function copyright(family: FamilyName): string {
  const license =
    family === "debian"
      ? "On Debian systems the license is in /usr/share/common-licenses/Apache-2.0.\n"
      : fs.readFileSync(path.join(project, "LICENSE"), "utf8");
  return [
    "waagent: Azure Linux VM agent as one executable",
    "",
    "Copyright (C) 2026 the waagent contributors",
    "License: Apache-2.0",
    "",
    "The executable contains the Bun runtime (MIT, with parts under other licenses: https://bun.com/docs/project/licensing)",
    "and npm packages, all MIT, that the project's sbom.spdx.json lists.",
    "",
    license,
  ].join("\n");
}
