/** The models of `public/bundle/` that this app can run; the first is taken at the start. */
export const MODELS: readonly string[] = {{models}};

/** Where the bundle lies, relative to the page. */
export const BUNDLE = "bundle/";
