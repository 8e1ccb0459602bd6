import type { Storage } from "../azure/download.ts";
import type { History } from "../azure/history.ts";
import { parseManifest } from "../azure/manifest.ts";
import type { PackageSource } from "../extensions/package-source.ts";

/**
 * Packages of handlers from the platform's storage. `verify` tells whether the goal state at hand is FastTrack: the
 * host plugin then checks the address of what is asked for (`wire-protocol.md` HGAP-05).
 */
export function createPackageSource(
  storage: Storage,
  history: Pick<History, "current">,
  verify: () => boolean,
): PackageSource {
  return {
    versions: async (handler, signal) => {
      const what = `the manifest of ${handler.name}`;
      const { text, uri } = await storage.fetchManifest(handler.manifestUris, {
        what,
        verify: verify(),
        signal,
        check: (answer) => void parseManifest(answer, what),
      });
      history.current()?.save(`${handler.name}.manifest.xml`, text);
      return { packages: parseManifest(text, what), manifestUri: uri };
    },
    download: ({ what, uris, manifestUri, file, accept, signal }) =>
      storage.downloadPackage(uris, file, { what, manifestUri, accept, verify: verify(), signal }),
    keep: (name, text) => history.current()?.save(name, text),
  };
}
