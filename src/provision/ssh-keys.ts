import path from "node:path";
import { AgentError, describe } from "../base/error.ts";
import type { Config } from "../config/table.ts";
import { changeBeneath } from "../system/beneath.ts";
import { join, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import type { Account } from "./accounts.ts";
import type { KeyPairEntry, PublicKeyEntry } from "./ovf.ts";
import {
  mergeKeys,
  parsePublicKeys,
  publicKeyOfCertificate,
  publicKeyOfPrivate,
  type PublicKeyLine,
} from "./public-key.ts";

type Machine = Pick<System, "exec" | "files" | "log" | "root">;
type Paths = Pick<Config, "Lib.Dir" | "OS.HomeDir">;

const DIRECTORY_MODE = 0o700;
const AUTHORIZED_KEYS_MODE = 0o600;
const PRIVATE_MODE = 0o600;
const PUBLIC_MODE = 0o644;

/**
 * Writes every good key into its file; each bad one is a WARNING. Errors: AgentError "os-utility" when there are
 * entries and not one of them could be installed (SSH-20, ERR-05, DB-10). Returns the reasons of the bad ones.
 */
export async function installPublicKeys(
  system: Machine,
  config: Paths,
  account: Account,
  options: { readonly entries: readonly PublicKeyEntry[] },
): Promise<readonly string[]> {
  const problems: string[] = [];
  const wanted = new Map<string, PublicKeyLine[]>();
  for (const [index, entry] of options.entries.entries()) {
    try {
      const parts = partsBelowHome(entry.path, account, config);
      const keys = readEntry(system, config, entry);
      const place = parts.join("/");
      wanted.set(place, [...(wanted.get(place) ?? []), ...keys]);
    } catch (error) {
      problems.push(`SSH public key ${index + 1} of ${account.name}: ${describe(error)}`);
    }
  }
  for (const [place, keys] of wanted) {
    try {
      for (const key of keys.filter((candidate) => !candidate.isWellFormed))
        system.log.warning(
          `A public key of ${account.name} says ${key.type} but its bytes do not: sshd will not accept it`,
        );
      const file = join(account.home, place);
      changeBeneath(
        system.root,
        account.home,
        {
          parts: place.split("/"),
          owner: account,
          mode: AUTHORIZED_KEYS_MODE,
          directoryMode: DIRECTORY_MODE,
        },
        (old) => mergeKeys(old, keys),
      );
      await labelForSsh(system, file);
    } catch (error) {
      problems.push(`SSH public keys of ${account.name} in ${place}: ${describe(error)}`);
      wanted.delete(place);
    }
  }
  for (const problem of problems) system.log.warning(problem);
  if (options.entries.length > 0 && wanted.size === 0)
    throw new AgentError(
      "os-utility",
      `No SSH public key could be installed: ${problems.join("; ")}`,
    );
  return problems;
}

/** SSH-20: the value wins, else the certificate with that thumbprint. */
function readEntry(
  system: Pick<System, "files">,
  config: Paths,
  entry: PublicKeyEntry,
): PublicKeyLine[] {
  if (entry.value !== undefined) return parsePublicKeys(entry.value);
  if (entry.fingerprint === undefined)
    throw new AgentError("os-utility", "it has neither a value nor a fingerprint");
  const file = certificateFile(config, entry.fingerprint, "crt");
  const pem = system.files.readTextIfExists(file);
  if (pem === undefined)
    throw new AgentError("os-utility", `the certificate ${file} was not sent by the platform`);
  return [publicKeyOfCertificate(pem, file)];
}

/**
 * Copies key pairs that the platform sent as certificates: the private key for its owner only, the public half in
 * OpenSSH's form beside it (SSH-24, DB-11). Errors: AgentError "os-utility" for the first one that cannot be.
 */
export async function installKeyPairs(
  system: Machine,
  config: Paths,
  account: Account,
  options: { readonly entries: readonly KeyPairEntry[] },
): Promise<void> {
  for (const entry of options.entries) {
    const parts = partsBelowHome(entry.path, account, config);
    if (entry.fingerprint === undefined)
      throw new AgentError("os-utility", `The key pair for ${entry.path} has no fingerprint`);
    const source = certificateFile(config, entry.fingerprint, "prv");
    const pem = system.files.readTextIfExists(source);
    if (pem === undefined)
      throw new AgentError(
        "os-utility",
        `The private key ${source} for ${entry.path} was not sent by the platform`,
      );
    const publicLine = `${publicKeyOfPrivate(pem, source).line}\n`;
    const common = { owner: account, directoryMode: DIRECTORY_MODE };
    changeBeneath(system.root, account.home, { ...common, parts, mode: PRIVATE_MODE }, () =>
      Buffer.from(pem),
    );
    const publicParts = [...parts.slice(0, -1), `${parts.at(-1)}.pub`];
    changeBeneath(
      system.root,
      account.home,
      { ...common, parts: publicParts, mode: PUBLIC_MODE },
      () => Buffer.from(publicLine),
    );
    await labelForSsh(system, join(account.home, ...parts));
    await labelForSsh(system, join(account.home, ...publicParts));
  }
}

function certificateFile(config: Paths, fingerprint: string, suffix: "crt" | "prv"): SystemPath {
  if (!/^[0-9A-Fa-f]{40}$/.test(fingerprint))
    throw new AgentError("os-utility", `${JSON.stringify(fingerprint)} is not a thumbprint`);
  return join(config["Lib.Dir"] as SystemPath, `${fingerprint.toUpperCase()}.${suffix}`);
}

/**
 * Names of a key path below the user's home. `$HOME` stands for the base directory of homes (SSH-21), so the path
 * may name the home by that base or by the user database. Errors: AgentError "os-utility" outside of it (DB-10).
 */
export function partsBelowHome(
  keyPath: string | undefined,
  account: Pick<Account, "home" | "name">,
  config: Pick<Config, "OS.HomeDir">,
): readonly string[] {
  if (keyPath === undefined) throw new AgentError("os-utility", "it has no path");
  const normal = path.posix.normalize(keyPath.replaceAll("$HOME", config["OS.HomeDir"]));
  const homes = [account.home, path.posix.join(config["OS.HomeDir"], account.name)];
  for (const home of homes) {
    const below = path.posix.relative(home, normal);
    if (normal.startsWith("/") && below !== "" && !below.startsWith("..")) return below.split("/");
  }
  throw new AgentError(
    "os-utility",
    `the path ${JSON.stringify(normal)} is not below the home directory of ${account.name}`,
  );
}

/** SELinux: sshd may only read keys with this type (SSH-23). Failure is no failure. */
export async function labelForSsh(
  system: Pick<System, "exec" | "log">,
  file: SystemPath,
): Promise<void> {
  if (system.exec.find("getenforce") === undefined) return;
  try {
    await system.exec.run({ argv: ["chcon", "unconfined_u:object_r:ssh_home_t:s0", file] });
  } catch (error) {
    system.log.verbose(`Could not label ${file} for SELinux: ${describe(error)}`);
  }
}
