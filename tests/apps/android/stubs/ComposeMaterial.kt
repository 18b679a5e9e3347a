package androidx.compose.material3

import androidx.compose.foundation.layout.ColumnScope
import androidx.compose.foundation.layout.RowScope
import androidx.compose.runtime.Composable
import androidx.compose.ui.Modifier
import androidx.compose.ui.graphics.Color
import androidx.compose.ui.text.TextStyle

class ColorScheme {
    val error: Color = TODO()
}

class Typography {
    val bodySmall: TextStyle = TODO()
}

object MaterialTheme {
    val colorScheme: ColorScheme
        @Composable get() = TODO()
    val typography: Typography
        @Composable get() = TODO()
}

fun darkColorScheme(): ColorScheme = TODO()

fun lightColorScheme(): ColorScheme = TODO()

@Composable
fun MaterialTheme(colorScheme: ColorScheme, content: @Composable () -> Unit): Unit = TODO()

@Composable
fun Surface(modifier: Modifier = Modifier, content: @Composable () -> Unit): Unit = TODO()

@Composable
fun Text(text: String, modifier: Modifier = Modifier, color: Color = TODO(), style: TextStyle = TODO()): Unit = TODO()

@Composable
fun Button(
    onClick: () -> Unit,
    modifier: Modifier = Modifier,
    enabled: Boolean = true,
    content: @Composable RowScope.() -> Unit,
): Unit = TODO()

@Composable
fun OutlinedButton(
    onClick: () -> Unit,
    modifier: Modifier = Modifier,
    enabled: Boolean = true,
    content: @Composable RowScope.() -> Unit,
): Unit = TODO()

@Composable
fun FilterChip(
    selected: Boolean,
    onClick: () -> Unit,
    label: @Composable () -> Unit,
    modifier: Modifier = Modifier,
    enabled: Boolean = true,
): Unit = TODO()

@Composable
fun OutlinedTextField(
    value: String,
    onValueChange: (String) -> Unit,
    modifier: Modifier = Modifier,
    enabled: Boolean = true,
    readOnly: Boolean = false,
    label: (@Composable () -> Unit)? = null,
    trailingIcon: (@Composable () -> Unit)? = null,
    singleLine: Boolean = false,
): Unit = TODO()

@RequiresOptIn
annotation class ExperimentalMaterial3Api

class ExposedDropdownMenuAnchorType private constructor() {
    companion object {
        val PrimaryNotEditable: ExposedDropdownMenuAnchorType = TODO()
    }
}

abstract class ExposedDropdownMenuBoxScope {
    abstract fun Modifier.menuAnchor(type: ExposedDropdownMenuAnchorType, enabled: Boolean = true): Modifier

    @Composable
    fun ExposedDropdownMenu(
        expanded: Boolean,
        onDismissRequest: () -> Unit,
        modifier: Modifier = Modifier,
        content: @Composable ColumnScope.() -> Unit,
    ): Unit = TODO()
}

@ExperimentalMaterial3Api
@Composable
fun ExposedDropdownMenuBox(
    expanded: Boolean,
    onExpandedChange: (Boolean) -> Unit,
    modifier: Modifier = Modifier,
    content: @Composable ExposedDropdownMenuBoxScope.() -> Unit,
): Unit = TODO()

@ExperimentalMaterial3Api
object ExposedDropdownMenuDefaults {
    @Composable
    fun TrailingIcon(expanded: Boolean, modifier: Modifier = Modifier): Unit = TODO()
}

@Composable
fun DropdownMenuItem(
    text: @Composable () -> Unit,
    onClick: () -> Unit,
    modifier: Modifier = Modifier,
    enabled: Boolean = true,
): Unit = TODO()
