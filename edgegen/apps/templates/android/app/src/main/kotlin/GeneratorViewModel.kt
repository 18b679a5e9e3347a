package {{package}}

import android.app.Application
import android.net.Uri
import androidx.lifecycle.AndroidViewModel
import androidx.lifecycle.viewModelScope
import edgegen.GeneratorException
import edgegen.Image
import edgegen.Png
import edgegen.Recipe
import kotlin.random.Random
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext

/** What the screen shows. */
data class UiState(
    val loaded: Boolean = false,
    val busy: Boolean = true,
    val classNames: List<String> = emptyList(),
    val takesPicture: Boolean = false,
    val takesSeed: Boolean = true,
    val seed: String = "0",
    val prompt: String? = null,
    val label: Int? = null,
    val input: Image? = null,
    val picture: Picture? = null,
    val selfTest: String? = null,
    val error: String? = null,
)

/** A picture with how it was made, and in which time. */
data class Picture(val image: Image, val recipe: Recipe, val milliseconds: Double)

class GeneratorViewModel(application: Application) : AndroidViewModel(application) {
    private val state = MutableStateFlow(UiState())
    val ui: StateFlow<UiState> = state.asStateFlow()

    /** The model runs on one thread at a time, and never on the main one. */
    @OptIn(ExperimentalCoroutinesApi::class)
    private val worker: CoroutineDispatcher = Dispatchers.Default.limitedParallelism(1)
    private var model: Model? = null

    init {
        background {
            val opened = Model.open(getApplication())
            model = opened
            val names = opened.bundle.manifest.classNames.ifEmpty { List(opened.generator.classes) { "$it" } }
            state.update {
                it.copy(
                    loaded = true,
                    classNames = if (opened.generator.classes > 0) names else emptyList(),
                    label = if (opened.generator.classes > 0) 0 else null,
                    prompt = opened.bundle.manifest.golden.prompts.firstOrNull()?.text,
                    takesPicture = opened.generator.imageInput != null,
                    takesSeed = opened.artifact.input(edgegen.Role.NOISE) != null,
                )
            }
            if (opened.generator.imageInput == null) generateNow(opened, seed = 0)
            if (BuildConfig.DEBUG && isFirstLaunch(opened)) {
                val result = opened.selfTest()
                state.update { it.copy(selfTest = result.toString()) }
                remember(opened, result.passed)
            }
        }
    }

    fun setSeed(text: String) = state.update { it.copy(seed = text.filter(Char::isDigit).take(18)) }

    fun setPrompt(text: String) = state.update { it.copy(prompt = text.take(LONGEST_PROMPT)) }

    fun newSeed() {
        state.update { it.copy(seed = Random.nextLong(0, LARGEST_DRAWN).toString()) }
        generate()
    }

    fun setLabel(label: Int) = state.update { it.copy(label = label) }

    fun setInput(uri: Uri) = background {
        val input = model?.generator?.imageInput ?: return@background
        val image = readPicture(getApplication(), uri, input)
        state.update { it.copy(input = image) }
    }

    fun generate() {
        val seed = state.value.seed.toLongOrNull()
        if (seed == null) {
            state.update { it.copy(error = getApplication<Application>().getString(R.string.seed_wrong)) }
            return
        }
        background { model?.let { generateNow(it, seed) } }
    }

    fun save(uri: Uri) = background {
        val picture = state.value.picture ?: return@background
        writePicture(getApplication(), uri, Png.encode(picture.image, picture.recipe))
    }

    /** Keeps the latencies so far: called when the app leaves the screen. */
    fun writeLog() = background { model?.writeLog() }

    override fun onCleared() {
        model?.close()
    }

    private fun generateNow(opened: Model, seed: Long) {
        val (label, input) = state.value.let { it.label to it.input }
        val prompt = state.value.prompt
        val (image, milliseconds) = opened.generate(seed, label, input, prompt)
        state.update { it.copy(picture = Picture(image, opened.recipe(seed, label, input, prompt), milliseconds)) }
    }

    /** Runs `work` on the worker; what goes wrong is shown, and the app goes on. */
    private fun background(work: () -> Unit) {
        viewModelScope.launch {
            state.update { it.copy(busy = true, error = null) }
            try {
                withContext(worker) { work() }
            } catch (e: GeneratorException) {
                state.update { it.copy(error = e.message) }
            } finally {
                state.update { it.copy(busy = false) }
            }
        }
    }

    /** The self-test runs once for each model. */
    private fun isFirstLaunch(opened: Model) = preferences().getString(TESTED, null) != ModelFiles.key(opened.bundle, opened.artifact)

    private fun remember(opened: Model, passed: Boolean) {
        if (passed) preferences().edit().putString(TESTED, ModelFiles.key(opened.bundle, opened.artifact)).apply()
    }

    private fun preferences() = getApplication<Application>().getSharedPreferences("edgegen", 0)

    private companion object {
        const val TESTED = "tested"
        const val LARGEST_DRAWN = 1_000_000L
        const val LONGEST_PROMPT = 2000 // characters
    }
}
