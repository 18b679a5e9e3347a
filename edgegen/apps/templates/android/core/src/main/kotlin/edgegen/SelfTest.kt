package edgegen

/** How near a device comes to the golden images of an artifact: [psnrDb] of every image, against [floorDb]. */
data class SelfTest(
    val file: String,
    val floorDb: Double,
    val psnrDb: List<Double>,
    /** Golden prompts of which this device makes other token numbers. */
    val wrongPrompts: List<String> = emptyList(),
) {
    val passed: Boolean get() = wrongPrompts.isEmpty() && psnrDb.all { it >= floorDb }

    val worstDb: Double get() = psnrDb.min()

    override fun toString(): String {
        if (wrongPrompts.isNotEmpty()) {
            return "self-test FAILED: other token numbers for ${wrongPrompts.joinToString { "\"$it\"" }}"
        }
        val failed = psnrDb.count { it < floorDb }
        val nearest = if (worstDb.isInfinite()) "equal to the last bit" else "%.1f dB at worst".format(worstDb)
        val verdict = if (passed) "passed" else "FAILED, $failed pictures are below"
        return "self-test $verdict: ${psnrDb.size} pictures of $file, $nearest, floor $floorDb dB"
    }

    companion object {
        /**
         * Makes every golden image again.
         *
         * @throws GeneratorException where a picture cannot be made at all
         */
        fun run(bundle: Bundle, artifact: Artifact, generator: Generator): SelfTest {
            val expected = bundle.goldenImages(artifact)
            val given = artifact.input(Role.IMAGE)?.let { bundle.goldenInputs(it) }
            val psnr = bundle.manifest.golden.samples.mapIndexed { at, sample ->
                val prompt = sample.prompt?.let { bundle.manifest.golden.prompts[it].text }
                val image = generator.generate(sample.seed, sample.label, given?.get(at), sample.index, prompt)
                if (image.pixels.size != expected[at].pixels.size || image.width != expected[at].width) {
                    throw OutputException("${image.width} x ${image.height} pixels, and the golden image has others")
                }
                image.psnr(expected[at])
            }
            val wrong = bundle.manifest.golden.prompts.filter { generator.tokens(it.text).toList() != it.tokens }
            return SelfTest(artifact.file, artifact.floorDb, psnr, wrong.map { it.text })
        }
    }
}
