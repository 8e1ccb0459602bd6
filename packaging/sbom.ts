import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { DATE_OF_RELEASE, PRODUCT } from "./product.ts";

const project = path.resolve(import.meta.dir, "..");

interface Component {
  readonly name: string;
  readonly version: string;
  readonly license: string;
  /** Package URL. */
  readonly purl: string;
  /** SHA-512 in hex, where the lock file knows it. */
  readonly sha512?: string;
}

/** Everything that is inside the executable besides our own code. */
export function components(): Component[] {
  const lock = JSON.parse(
    // The lock file is JSON with trailing commas.
    fs.readFileSync(path.join(project, "bun.lock"), "utf8").replaceAll(/,(\s*[}\]])/g, "$1"),
  ) as {
    workspaces: Record<string, { dependencies?: Record<string, string> }>;
    packages: Record<string, [string, string, { dependencies?: Record<string, string> }, string]>;
  };
  const wanted = Object.keys(lock.workspaces[""]?.dependencies ?? {});
  const seen = new Set<string>();
  for (let name = wanted.shift(); name !== undefined; name = wanted.shift()) {
    if (seen.has(name)) continue;
    seen.add(name);
    wanted.push(...Object.keys(lock.packages[name]?.[2].dependencies ?? {}));
  }
  const npm = [...seen].sort().map((name): Component => {
    const [identity = "", , , integrity = ""] = lock.packages[name] ?? [];
    const version = identity.slice(identity.lastIndexOf("@") + 1);
    const manifest = JSON.parse(
      fs.readFileSync(path.join(project, "node_modules", name, "package.json"), "utf8"),
    ) as { license?: string };
    return {
      name,
      version,
      license: manifest.license ?? "NOASSERTION",
      purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
      sha512: Buffer.from(integrity.replace(/^sha512-/, ""), "base64").toString("hex"),
    };
  });
  return [
    { name: "bun", version: Bun.version, license: "MIT", purl: `pkg:npm/bun@${Bun.version}` },
    ...npm,
  ];
}

/** An SPDX 2.3 document about the files of one delivery; `files` are names with their content's SHA-256. */
export function sbom(files: Readonly<Record<string, string>>): string {
  const parts = components();
  const identity = (name: string) => `SPDXRef-${name.replaceAll(/[^A-Za-z0-9.-]/g, "-")}`;
  const agent = identity(PRODUCT.name);
  const digest = createHash("sha256")
    .update(JSON.stringify([files, parts]))
    .digest("hex");
  return `${JSON.stringify(
    {
      spdxVersion: "SPDX-2.3",
      dataLicense: "CC0-1.0",
      SPDXID: "SPDXRef-DOCUMENT",
      name: `${PRODUCT.name}-${PRODUCT.version}`,
      documentNamespace: `https://spdx.org/spdxdocs/${PRODUCT.name}-${PRODUCT.version}-${digest}`,
      creationInfo: {
        created: new Date(DATE_OF_RELEASE * 1000).toISOString().replace(".000", ""),
        creators: [`Tool: ${PRODUCT.name}-packaging`],
      },
      packages: [
        {
          SPDXID: agent,
          name: PRODUCT.name,
          versionInfo: PRODUCT.version,
          downloadLocation: "NOASSERTION",
          filesAnalyzed: false,
          licenseConcluded: PRODUCT.license,
          licenseDeclared: PRODUCT.license,
          copyrightText: "NOASSERTION",
        },
        ...parts.map((part) => ({
          SPDXID: identity(`${part.name}-${part.version}`),
          name: part.name,
          versionInfo: part.version,
          downloadLocation: "NOASSERTION",
          filesAnalyzed: false,
          licenseConcluded: part.license,
          licenseDeclared: part.license,
          copyrightText: "NOASSERTION",
          externalRefs: [
            {
              referenceCategory: "PACKAGE-MANAGER",
              referenceType: "purl",
              referenceLocator: part.purl,
            },
          ],
          ...(part.sha512 === undefined
            ? {}
            : { checksums: [{ algorithm: "SHA512", checksumValue: part.sha512 }] }),
        })),
      ],
      files: Object.entries(files).map(([name, sha256]) => ({
        SPDXID: identity(`File-${name}`),
        fileName: `./${name}`,
        checksums: [{ algorithm: "SHA256", checksumValue: sha256 }],
        licenseConcluded: PRODUCT.license,
        copyrightText: "NOASSERTION",
      })),
      relationships: [
        {
          spdxElementId: "SPDXRef-DOCUMENT",
          relationshipType: "DESCRIBES",
          relatedSpdxElement: agent,
        },
        ...parts.map((part) => ({
          spdxElementId: agent,
          relationshipType: "CONTAINS",
          relatedSpdxElement: identity(`${part.name}-${part.version}`),
        })),
      ],
    },
    undefined,
    2,
  )}\n`;
}
