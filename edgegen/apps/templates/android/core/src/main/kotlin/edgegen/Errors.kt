package edgegen

/** All that goes wrong between a bundle and a picture, so that an app can tell its user what to do. */
sealed class GeneratorException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** manifest.json is no manifest of edgegen, is of another version, or its parts contradict each other. */
class ManifestException(message: String, cause: Throwable? = null) : GeneratorException(message, cause)

/** A file of the bundle is not there, or cannot be read or written. */
class FileException(message: String, cause: Throwable? = null) : GeneratorException(message, cause)

/** A file does not hold what the manifest says: it was cut, changed or mixed up. */
class HashException(val file: String, val expected: String, val actual: String) :
    GeneratorException("$file: its SHA-256 is $actual, and the manifest says $expected; install the app again")

/** The caller gave a label, an image, a prompt or a seed that the generator does not take. */
class InputException(message: String) : GeneratorException(message)

/** The runtime gave something else than the manifest says. */
class OutputException(message: String) : GeneratorException(message)

/** The runtime could not load or run the model. */
class InferenceException(message: String, cause: Throwable? = null) : GeneratorException(message, cause)
