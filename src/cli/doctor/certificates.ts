import { createHash, createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { describe } from "../../base/error.ts";
import { JsonReader } from "../../base/json.ts";
import { configOf, sequenceFile, type HandlerRef, type Layout } from "../../extensions/layout.ts";
import { settingsOnDisk } from "../../extensions/reports.ts";
import { join, type SystemPath } from "../../system/root.ts";
import type { System } from "../../system/system.ts";

const MAX_BYTES = 16 * 1024 * 1024;

/** Newest settings of a handler that hold something encrypted which no key of this machine opens. */
export function undecryptableSettings(
  system: Pick<System, "files">,
  layout: Layout,
  handler: HandlerRef,
): readonly { readonly file: SystemPath; readonly reason: string }[] {
  return settingsOnDisk(system, layout, handler).flatMap(({ extension, sequence }) => {
    const file = join(configOf(layout, handler), sequenceFile(sequence, "settings", extension));
    const reason = problemOf(system, layout.lib, file);
    return reason === undefined ? [] : [{ file, reason }];
  });
}

function problemOf(
  system: Pick<System, "files">,
  lib: SystemPath,
  file: SystemPath,
): string | undefined {
  const text = system.files.readTextIfExists(file, { maxBytes: MAX_BYTES });
  // Without settings the file is there and empty (`extensions.md` EXT-23).
  if (text === undefined || text === "") return undefined;
  let thumbprint: string;
  try {
    const settings = JsonReader.parse(text, file)
      .get("runtimeSettings")
      .items()[0]
      ?.get("handlerSettings");
    if (settings === undefined || settings.get("protectedSettings").isAbsent) return undefined;
    thumbprint = settings.get("protectedSettingsCertThumbprint").string();
  } catch (error) {
    return describe(error);
  }
  if (!/^[0-9A-Fa-f]{40}$/.test(thumbprint))
    return `it names the certificate ${JSON.stringify(thumbprint.slice(0, 80))}, which is no thumbprint`;
  return keyProblem(system, lib, thumbprint.toUpperCase());
}

/** Why a certificate of the state directory and its key cannot decrypt; undefined when they can. */
function keyProblem(
  system: Pick<System, "files">,
  lib: SystemPath,
  thumbprint: string,
): string | undefined {
  const crt = join(lib, `${thumbprint}.crt`);
  const prv = join(lib, `${thumbprint}.prv`);
  const [certificateText, keyText] = [crt, prv].map((name) => system.files.readTextIfExists(name));
  if (certificateText === undefined && keyText === undefined)
    return `it is encrypted for the certificate ${thumbprint}, which this machine does not hold`;
  if (certificateText === undefined) return `the certificate ${crt} is missing`;
  if (keyText === undefined) return `the private key ${prv} is missing`;
  try {
    const certificate = new X509Certificate(certificateText);
    const actual = createHash("sha1").update(certificate.raw).digest("hex").toUpperCase();
    if (actual !== thumbprint) return `${crt} holds another certificate, ${actual}`;
    const key = createPublicKey(createPrivateKey(keyText)).export({ type: "spki", format: "der" });
    const wanted = certificate.publicKey.export({ type: "spki", format: "der" });
    return key.equals(wanted) ? undefined : `the private key ${prv} is not that of ${crt}`;
  } catch (error) {
    // A broken PEM file is quoted by no one: the message is the library's own.
    return `${crt} or ${prv} is damaged: ${error instanceof Error ? error.message : "unreadable"}`;
  }
}
