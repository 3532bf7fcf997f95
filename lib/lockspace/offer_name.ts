/** How the name of an offer ends, the file beside a key that lets a migrating guest in at its destination. */
export const OFFER_END = ".migration.json";
