export interface Counts {
  passed: number;
  failed: number;
  /** `file: test name`. */
  skipped: string[];
}
export function readJunit(text: string): Counts;
