/** What `run` needs for `--dry-run` and `--wait` only: read when one of them is given. */
export { formatForecasts } from "./forecast_text.ts";
export { acquireWithin } from "./wait.ts";
