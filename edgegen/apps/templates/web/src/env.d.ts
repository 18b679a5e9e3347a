/// <reference types="vite/client" />

/** Of onnxruntime-web, from package.json. */
declare const RUNTIME_VERSION: string;
