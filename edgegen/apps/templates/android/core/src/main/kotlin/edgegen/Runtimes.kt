package edgegen

/**
 * The open files of an artifact: a student is opened when one of its classes is made, and closed for another one unless
 * they are small. One is used by one thread at a time; [Generator] sees to that.
 *
 * @param room bytes of files that stay open together
 */
class Runtimes(private val room: Long = SMALL, private val open: (ModelFile) -> Runtime) : AutoCloseable {
    private val opened = LinkedHashMap<ModelFile, Runtime>() // the last one was used last

    /** @throws InferenceException where the runtime refuses the file */
    fun of(file: ModelFile): Runtime {
        val there = opened.remove(file)
        if (there == null) makeRoom(file.bytes)
        return (there ?: open(file)).also { opened[file] = it }
    }

    override fun close() {
        opened.values.forEach { it.close() }
        opened.clear()
    }

    private fun makeRoom(bytes: Long) {
        while (opened.isNotEmpty() && opened.keys.sumOf { it.bytes } + bytes > room) {
            opened.remove(opened.keys.first())?.close()
        }
    }

    private companion object {
        const val SMALL = 64_000_000L
    }
}
