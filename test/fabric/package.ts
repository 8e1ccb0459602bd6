import { zip, type ZipEntry } from "./zip.ts";

/** A test extension: what its package holds. */
export interface PackageDescription {
  /** Handler name, "Publisher.Type". */
  readonly name: string;
  readonly version: string;
  /** Members of `handlerManifest` that differ from the default. */
  readonly manifest?: Readonly<Record<string, unknown>>;
  /** Members beside `handlerManifest` (resourceLimits, signingInfo). */
  readonly element?: Readonly<Record<string, unknown>>;
  /** Shell text per command that runs before the common ending. */
  readonly scripts?: Partial<Record<HandlerCommand, string>>;
  readonly files?: readonly ZipEntry[];
  /** Marks the version as internal in the manifest. */
  readonly isInternal?: boolean;
  /** The whole archive as base64; then nothing else of the description counts. */
  readonly archive?: string;
}

export type HandlerCommand = "install" | "enable" | "update" | "disable" | "uninstall";

const COMMANDS: readonly HandlerCommand[] = ["install", "enable", "update", "disable", "uninstall"];

/**
 * Where every test extension appends one line per command: `<time> <command> <sequence> <version>
 * <extension of a multi-config handler> <handler>`, "-" for what there is not.
 */
export const JOURNAL = "/var/lib/fabric-journal";

/** The archive as it is put into the blob store. */
export function buildPackage(description: PackageDescription): Uint8Array {
  if (description.archive !== undefined) return Buffer.from(description.archive, "base64");
  const handlerManifest: Record<string, unknown> = {
    rebootAfterInstall: false,
    reportHeartbeat: false,
    ...Object.fromEntries(COMMANDS.map((command) => [`${command}Command`, `bin/${command}.sh`])),
    ...description.manifest,
  };
  const manifest = [
    { name: description.name, version: 1.0, ...description.element, handlerManifest },
  ];
  return zip([
    { name: "HandlerManifest.json", content: JSON.stringify(manifest, null, 2) },
    { name: "bin/common.sh", content: COMMON, mode: 0o755 },
    ...COMMANDS.map((command) => ({
      name: `bin/${command}.sh`,
      content: script(description, command),
      mode: 0o755,
    })),
    ...(description.files ?? []),
  ]);
}

function script(description: PackageDescription, command: HandlerCommand): string {
  return `#!/bin/sh
name='${description.name}' version='${description.version}' command='${command}'
. "$(dirname "$0")/common.sh"
${description.scripts?.[command] ?? ""}
${command === "enable" ? 'report success "enabled"' : ""}
`;
}

/** Helpers of the handler scripts, in plain sh: what every real handler does in its own way. */
const COMMON = `base=$(cd "$(dirname "$0")/.." && pwd)
seq=\${ConfigSequenceNumber:-}
journal=${JOURNAL}
echo "$(date +%s.%N) $command \${seq:--} $version \${ConfigExtensionName:--} $name" >>"$journal"
prefix=\${ConfigExtensionName:+$ConfigExtensionName.}

# report STATUS MESSAGE: the status file of the current settings
report() {
    mkdir -p "$base/status"
    printf '[{"version": 1.0, "timestampUTC": "%s", "status": {"name": "%s", "operation": "%s", "status": "%s", "code": 0, "formattedMessage": {"lang": "en-US", "message": "%s"}}}]' \\
        "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$name" "$command" "$1" "$2" >"$base/status/$prefix$seq.status.tmp"
    mv "$base/status/$prefix$seq.status.tmp" "$base/status/$prefix$seq.status"
}

# protected: the clear text of the protected settings, decrypted as handlers do, with the files the agent keeps
protected() {
    settings=$base/config/$prefix$seq.settings
    thumbprint=$(sed -n 's/.*"protectedSettingsCertThumbprint": *"\\([^"]*\\)".*/\\1/p' "$settings")
    sed -n 's/.*"protectedSettings": *"\\([^"]*\\)".*/\\1/p' "$settings" | base64 -d |
        openssl cms -decrypt -inform DER -inkey "$base/../$thumbprint.prv" -recip "$base/../$thumbprint.crt"
}
`;
