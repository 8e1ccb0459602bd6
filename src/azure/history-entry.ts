/** One folder of the goal state history; it is made on the first save (`wire-protocol.md` HIST-01). */
export interface HistoryEntry {
  /** Never throws: a failure is one warning for the whole folder (HIST-23). */
  save(name: string, text: string): void;
}
