import { X509Certificate } from "node:crypto";
import { AgentError, describe, isAgentError } from "../base/error.ts";
import { compareVersions } from "../base/version.ts";
import { join, nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { parseHandlerManifest } from "./handler-manifest.ts";
import { fullName, type HandlerRef, type Layout } from "./layout.ts";
import { MICROSOFT_ROOT_PEM, MICROSOFT_ROOT_SHA256 } from "./microsoft-root.ts";

const ROOT_FILE = "microsoft_root_certificate.pem";
const MINIMUM_OPENSSL = "1.1.0";

/** Writes the anchor where `openssl` reads it from, at every start (`extensions.md` SIG-04). Errors: AgentError "io". */
export function writeTrustAnchor(system: Pick<System, "files">, layout: Layout): SystemPath {
  const file = join(layout.lib, ROOT_FILE);
  system.files.write(file, MICROSOFT_ROOT_PEM, { mode: 0o600 });
  return file;
}

/** True for exactly the certificate of the contract. */
export function isMicrosoftRoot(pem: string): boolean {
  try {
    const certificate = new X509Certificate(pem);
    return certificate.fingerprint256.replaceAll(":", "") === MICROSOFT_ROOT_SHA256;
  } catch {
    return false; // not even a certificate
  }
}

/** SIG-01: the program is an OpenSSL of at least 1.1.0; LibreSSL and others count as too old. */
export async function canVerify(
  system: Pick<System, "exec">,
  opensslPath: string,
): Promise<boolean> {
  try {
    const { stdout } = await system.exec.run({ argv: [opensslPath, "version"], timeoutMs: 10_000 });
    const version = /^OpenSSL (\d+\.\d+\.\d+)/.exec(stdout)?.[1];
    return version !== undefined && compareVersions(version, MINIMUM_OPENSSL) >= 0;
  } catch (error) {
    if (isAgentError(error)) return false; // SIG-09: no program, no validation, and no failed extension
    throw error;
  }
}

export interface SignatureInput {
  readonly handler: HandlerRef;
  readonly archive: SystemPath;
  /** Base64 of a detached DER CMS over the archive, as the goal state has it. */
  readonly encodedSignature: string;
  readonly opensslPath: string;
}

/** SIG-03. undefined when the signature is good, else the reason. */
export async function verifySignature(
  system: Pick<System, "files" | "exec">,
  layout: Layout,
  input: SignatureInput,
): Promise<string | undefined> {
  const { archive, handler } = input;
  const file = join(layout.lib, `${nameOf(archive)}_signature.pem`);
  const anchor = join(layout.lib, ROOT_FILE);
  try {
    if (!system.files.exists(anchor)) return `${anchor} is missing`;
    const bytes = Buffer.from(input.encodedSignature, "base64");
    if (bytes.length < 100) return "the goal state's signature is not base64 of a signature";
    system.files.write(file, bytes, { mode: 0o600 });
    await system.exec.run({
      argv: [
        input.opensslPath,
        ...["cms", "-verify", "-binary", "-inform", "der"],
        ...["-in", system.files.realPath(file)],
        ...["-content", system.files.realPath(archive)],
        ...["-purpose", "any"],
        ...["-CAfile", system.files.realPath(anchor)],
        "-no_check_time",
        // The content would be repeated on standard output.
        ...["-out", "/dev/null"],
      ],
      timeoutMs: 120_000,
    });
    return undefined;
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    return `openssl does not accept the signature of ${fullName(handler)}: ${describe(error)}`;
  } finally {
    system.files.remove(file);
  }
}

/** SIG-07. undefined when the manifest says what the goal state says, else the reason. */
export function verifySigningInfo(
  system: Pick<System, "files">,
  staging: SystemPath,
  handler: HandlerRef,
): string | undefined {
  const file = join(staging, "HandlerManifest.json");
  try {
    const { signingInfo } = parseHandlerManifest(system.files.readText(file), file);
    if (signingInfo === undefined)
      return "the handler manifest has no signingInfo with type, publisher and version";
    const dot = handler.name.lastIndexOf(".");
    const wanted = {
      type: handler.name.slice(dot + 1),
      publisher: handler.name.slice(0, Math.max(0, dot)),
      version: handler.version,
    };
    for (const key of ["type", "publisher", "version"] as const)
      if (signingInfo[key].toLowerCase() !== wanted[key].toLowerCase())
        return `signingInfo has the ${key} "${signingInfo[key].slice(0, 100)}", the goal state has "${wanted[key]}"`;
    return undefined;
  } catch (error) {
    return describe(error);
  }
}

export interface VerifyOptions extends SignatureInput {
  readonly staging: SystemPath;
  /** The operator's policy asks for a good signature (DB-28); else a bad one is only reported (SIG-05). */
  readonly isRequired: boolean;
}

/**
 * Checks signature and signing information of an unpacked package, and says what came of it. True when both are good.
 * Errors: AgentError "refused" when they are not and have to be.
 */
export async function verifyPackage(
  system: Pick<System, "files" | "exec" | "log" | "emit" | "clock">,
  layout: Layout,
  options: VerifyOptions,
): Promise<boolean> {
  const { handler, isRequired } = options;
  const name = fullName(handler);
  const began = system.clock.monotonic();
  const emit = (operation: string, problem: string | undefined, good: string): void =>
    system.emit({
      operation,
      success: problem === undefined,
      message: problem ?? good,
      durationMs: system.clock.monotonic() - began,
      name: handler.name,
      version: handler.version,
      log: false,
    });
  const refuse = (problem: string): boolean => {
    if (isRequired)
      throw new AgentError(
        "refused",
        `The policy requires a valid signature of ${name}, and ${problem}`,
      );
    system.log.warning(
      `Signature validation of ${name} failed, which can be ignored because the policy does not require it: ${problem}`,
    );
    return false;
  };

  if (options.encodedSignature === "") {
    if (isRequired) return refuse("the goal state has no signature for it");
    return false;
  }
  const signatureProblem = await verifySignature(system, layout, options);
  const goodSignature = `Successfully validated signature for package '${name}'`;
  emit("PackageSignatureResult", signatureProblem, goodSignature);
  if (signatureProblem !== undefined) return refuse(signatureProblem);
  system.log.info(goodSignature);
  const infoProblem = verifySigningInfo(system, options.staging, handler);
  const goodInfo = `Successfully validated handler manifest 'signingInfo' for extension '${name}'`;
  emit("PackageSigningInfoResult", infoProblem, goodInfo);
  if (infoProblem !== undefined) return refuse(infoProblem);
  system.log.info(goodInfo);
  return true;
}
