import type { Storage } from "../azure/download.ts";
import { parseManifest } from "../azure/manifest.ts";
import type { PackageSource } from "./package-source.ts";

/** Packages from the platform's storage, through azure/download.ts. */
export function createStorageSource(
  storage: Storage,
  options: {
    /** The goal state under way is FastTrack (HGAP-05). */
    readonly isFastTrack: () => boolean;
    /** Keeps a document in the current history folder (HIST-17, HIST-19). */
    readonly keep: (name: string, text: string) => void;
  },
): PackageSource {
  return {
    versions: async (handler, signal) => {
      const { text, uri } = await storage.fetchManifest(handler.manifestUris, {
        what: `the manifest of ${handler.name}`,
        verify: options.isFastTrack(),
        signal,
      });
      options.keep(`${handler.name}.manifest.xml`, text);
      const packages = parseManifest(text, `The manifest of ${handler.name}`);
      return { packages, manifestUri: uri };
    },
    download: async (request) => {
      await storage.downloadPackage(request.uris, request.file, {
        what: request.what,
        verify: options.isFastTrack(),
        manifestUri: request.manifestUri,
        accept: request.accept,
        signal: request.signal,
      });
    },
    keep: options.keep,
  };
}
