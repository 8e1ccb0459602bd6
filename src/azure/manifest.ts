import { childrenOf, descendant, descendantText, parseXml, type XmlElement } from "../base/xml.ts";

/** One version a manifest offers (`wire-protocol.md` MAN-01, `extensions.md` EXT-34). */
export interface ManifestPackage {
  readonly version: string;
  readonly uris: readonly string[];
  readonly isInternal: boolean;
  readonly disallowMajorUpgrade: boolean;
}

/** Plugins, then InternalPlugins; entries without a version are left out. Errors: AgentError "bad-input". */
export function parseManifest(text: string, what: string): readonly ManifestPackage[] {
  const root = parseXml(text, what);
  const packages = (list: string, isInternal: boolean): readonly ManifestPackage[] =>
    childrenOf(descendant(root, list), "Plugin").flatMap((plugin) => {
      const version = descendantText(plugin, "Version");
      return version === undefined ? [] : [toPackage(plugin, version, isInternal)];
    });
  return [...packages("Plugins", false), ...packages("InternalPlugins", true)];
}

function toPackage(plugin: XmlElement, version: string, isInternal: boolean): ManifestPackage {
  return {
    version,
    uris: childrenOf(descendant(plugin, "Uris"), "Uri")
      .map((uri) => uri.text?.trim() ?? "")
      .filter((uri) => uri !== ""),
    isInternal,
    disallowMajorUpgrade:
      descendantText(plugin, "DisallowMajorVersionUpgrade")?.toLowerCase() === "true",
  };
}
