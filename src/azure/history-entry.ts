/** One folder of the goal state history; it is made on the first save (`wire-protocol.md` HIST-01). */
export interface HistoryEntry {
  /** Never throws: a failure is one warning for the whole folder (HIST-23). */
  save(name: string, text: string): void;
}

/** Gives the folder for a tag. `aside`: it does not become the folder that status and manifests go to (VMS-47). */
export type OpenHistory = (tag: string, options?: { readonly aside?: boolean }) => HistoryEntry;
