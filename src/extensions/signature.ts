import { X509Certificate } from "node:crypto";
import { AgentError, describe, isAgentError } from "../base/error.ts";
import { compareVersions } from "../base/version.ts";
import { join, nameOf, type SystemPath } from "../system/root.ts";
import type { System } from "../system/system.ts";
import { parseHandlerManifest } from "./handler-manifest.ts";
import { fullName, type HandlerRef, type Layout } from "./layout.ts";
import {
  MICROSOFT_ROOT_PEM,
  MICROSOFT_ROOT_SHA256,
  MICROSOFT_TIME_ROOT_PEM,
} from "./microsoft-root.ts";
import { readStampTime, readTimeStamped } from "./time-stamp.ts";

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

/** SIG-03. undefined when the signature is good, else the reason. When it was made plays no part. */
export async function verifySignature(
  system: Pick<System, "files" | "exec">,
  layout: Layout,
  input: SignatureInput,
): Promise<string | undefined> {
  const anchor = join(layout.lib, ROOT_FILE);
  try {
    if (!system.files.exists(anchor)) return `${anchor} is missing`;
    const bytes = Buffer.from(input.encodedSignature, "base64");
    if (bytes.length < 100) return "the goal state's signature is not base64 of a signature";
    await verifyAt(system, layout, input, ["-no_check_time"]);
    return undefined;
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    return `openssl does not accept the signature of ${fullName(input.handler)}: ${describe(error)}`;
  }
}

/**
 * DB-28, for a signature that is good otherwise: its certificates are valid now, or they were when an RFC 3161 time stamp
 * says it was made. undefined when it was made in time, else the reason.
 */
export async function verifySigningTime(
  system: Pick<System, "files" | "exec">,
  layout: Layout,
  input: SignatureInput & { readonly timeAnchor?: string },
): Promise<string | undefined> {
  try {
    await verifyAt(system, layout, input, []);
    return undefined;
  } catch (error) {
    if (!(error instanceof AgentError)) throw error; // not valid now: a time stamp has to help
  }
  try {
    const { signature, token } = readTimeStamped(Buffer.from(input.encodedSignature, "base64"));
    if (token === undefined)
      return "the certificate it was signed with is not valid now, and it has no time stamp";
    const seconds = Math.floor(readStampTime(token, signature) / 1000);
    await verifyToken(system, layout, input, { token, seconds });
    await verifyAt(system, layout, input, ["-attime", String(seconds)]);
    return undefined;
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    return `it cannot be said that it was signed while the certificate was valid: ${describe(error)}`;
  }
}

/** Errors: AgentError with the words of openssl. */
async function verifyAt(
  system: Pick<System, "files" | "exec">,
  layout: Layout,
  input: SignatureInput,
  time: readonly string[],
): Promise<void> {
  const { files } = system;
  const file = join(layout.lib, `${nameOf(input.archive)}_signature.pem`);
  try {
    files.write(file, Buffer.from(input.encodedSignature, "base64"), { mode: 0o600 });
    await system.exec.run({
      argv: [
        input.opensslPath,
        ...["cms", "-verify", "-binary", "-inform", "der"],
        ...["-in", files.realPath(file)],
        ...["-content", files.realPath(input.archive)],
        ...["-purpose", "any"],
        ...["-CAfile", files.realPath(join(layout.lib, ROOT_FILE))],
        ...time,
        // The content would be repeated on standard output.
        ...["-out", "/dev/null"],
      ],
      timeoutMs: 120_000,
    });
  } finally {
    files.remove(file);
  }
}

/** The token is signed by a time stamping authority below its anchor, whose certificate was valid then. Errors: AgentError. */
export async function verifyToken(
  system: Pick<System, "files" | "exec">,
  layout: Layout,
  input: SignatureInput & { readonly timeAnchor?: string },
  stamp: { readonly token: Uint8Array; readonly seconds: number },
): Promise<void> {
  const { files } = system;
  const token = join(layout.lib, `${nameOf(input.archive)}_time_stamp.der`);
  const anchor = join(layout.lib, `${nameOf(input.archive)}_time_root.pem`);
  try {
    files.write(token, stamp.token, { mode: 0o600 });
    files.write(anchor, input.timeAnchor ?? MICROSOFT_TIME_ROOT_PEM, { mode: 0o600 });
    await system.exec.run({
      argv: [
        input.opensslPath,
        ...["cms", "-verify", "-binary", "-inform", "der"],
        ...["-in", files.realPath(token)],
        ...["-purpose", "timestampsign"],
        ...["-CAfile", files.realPath(anchor)],
        ...["-attime", String(stamp.seconds)],
        ...["-out", "/dev/null"],
      ],
      timeoutMs: 30_000,
    });
  } finally {
    files.remove(token);
    files.remove(anchor);
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
  if (isRequired) {
    const timeProblem = await verifySigningTime(system, layout, options);
    if (timeProblem !== undefined) return refuse(timeProblem);
  }
  const infoProblem = verifySigningInfo(system, options.staging, handler);
  const goodInfo = `Successfully validated handler manifest 'signingInfo' for extension '${name}'`;
  emit("PackageSigningInfoResult", infoProblem, goodInfo);
  if (infoProblem !== undefined) return refuse(infoProblem);
  system.log.info(goodInfo);
  return true;
}
