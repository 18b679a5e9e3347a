package edgegen

/** What runs a model. One is used by one thread at a time; [Generator] sees to that. */
interface Runtime : AutoCloseable {
    /** Name and version, for the latency log. */
    val about: String

    /** Threads that it was told to use. */
    val threads: Int

    /**
     * Runs a method of the model.
     *
     * @param inputs by name, in the order of the manifest
     * @return the one output, as `method.output` describes it
     * @throws InferenceException where the model cannot be run
     */
    fun run(method: Method, inputs: Map<String, Tensor>): Tensor
}
