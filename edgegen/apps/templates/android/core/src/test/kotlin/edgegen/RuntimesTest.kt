package edgegen

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertSame

class RuntimesTest {
    private val events = mutableListOf<String>()
    private val files = List(3) { ModelFile("$it", 40, "$it", emptyList()) }

    private inner class Named(private val name: String) : Runtime {
        override val about = name
        override val threads = 1

        override fun run(method: Method, inputs: Map<String, Tensor>): Tensor = throw InferenceException("runs nothing")

        override fun close() {
            events += "close $name"
        }
    }

    private fun runtimes(room: Long) = Runtimes(room) { file -> Named(file.name).also { events += "open ${file.name}" } }

    @Test
    fun largeFilesAreOpenOneAtATimeAndSmallOnesTogether() {
        val large = runtimes(room = 1)
        for (at in listOf(0, 0, 1, 0)) assertEquals("$at", large.of(files[at]).about)
        large.close()
        assertEquals(listOf("open 0", "close 0", "open 1", "close 1", "open 0", "close 0"), events)
        events.clear()
        val small = runtimes(room = 80)
        val first = small.of(files[0])
        small.of(files[1])
        assertSame(first, small.of(files[0]))
        small.of(files[2]) // the one that was not used for the longest time makes room
        assertEquals(listOf("open 0", "open 1", "close 1", "open 2"), events)
    }

    @Test
    fun aClassWithoutAStudentIsAnErrorOfTheManifest() {
        val students = listOf(Student(files[0], listOf(0, 2)), Student(files[1], listOf(1)))
        val artifact = AppBundle.artifact.copy(students = students)
        assertEquals(listOf("0", "1", "0"), (0..2).map { artifact.fileOf(it).name })
        assertFailsWith<ManifestException> { artifact.fileOf(3) }
        assertFailsWith<ManifestException> { artifact.fileOf(null) }
    }
}
